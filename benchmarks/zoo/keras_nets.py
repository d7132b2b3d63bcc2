"""Image classifiers of Keras: those of `keras.applications` in small and in real sizes, and nets of single layers.

It imports nothing of this project. The images of a net are (height, width, channels), as Keras has them.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import applications as apps
from keras import layers, ops
from keras.src.applications import convnext, densenet, efficientnet, efficientnet_v2, nasnet, resnet  # with parameters

CLASSES = 10
PIXELS = {"input": {"range": [0.0, 255.0]}}  # of a net that scales its images inside


@dataclass(frozen=True)
class Family:
    """A net and the images that it takes."""

    build: Callable[[tuple[int, ...]], keras.Model]  # from the shape of an image, in Keras's order
    shape: tuple[int, ...] = (32, 32, 3)
    probabilities: bool = True  # it ends in a softmax or sigmoid
    teacher: dict[str, Any] = field(default_factory=dict)  # what the spec must say, besides the file
    few: bool = False  # it is exported in few ways only

    @property
    def image(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of an image."""
        told = self.teacher.get("input", {}).get("shape")
        return tuple(told) if told else (self.shape[2], *self.shape[:2])


def application(kind: Callable[..., keras.Model], *arguments: Any, **options: Any) -> Callable[..., keras.Model]:
    """Return the builder of a net of `keras.applications` without its published weights."""
    options = {"weights": None, "classes": CLASSES} | options

    def build(shape: tuple[int, ...]) -> keras.Model:
        return kind(*arguments, input_shape=shape, **options)

    return build


def residual(version: str, widths: tuple[int, ...]) -> Callable[..., keras.Model]:
    """Return the builder of a short ResNet of two stages."""
    stack = getattr(resnet, f"stack_residual_blocks_{version}")

    def stages(x: Any) -> Any:
        for at, width in enumerate(widths):
            x = stack(x, width, 2, stride1=1 + at, name=f"conv{at + 2}")
        return x

    return application(resnet.ResNet, stages, version == "v2", True)


def sequence(*stack: Callable[..., Any], **options: Any) -> Callable[..., keras.Model]:
    """Return the builder of a net of layers in a row; each is made anew for every net."""

    def build(shape: tuple[int, ...]) -> keras.Model:
        x = images = layers.Input(shape, **options)
        for layer in stack:
            x = layer()(x)
        return keras.Model(images, x)

    return build


def on(layer: Callable[..., Any], *arguments: Any, **options: Any) -> Callable[..., Any]:
    """Return a layer to be made later."""
    return functools.partial(layer, *arguments, **options)


def conv(width: int = 8, size: int = 3, **options: Any) -> Callable[..., Any]:
    """Return a convolution to be made later."""
    return on(layers.Conv2D, width, size, **{"padding": "same"} | options)


def dense(activation: str | None = "softmax", units: int = CLASSES) -> Callable[..., Any]:
    """Return the layer of the classes, to be made later."""
    return on(layers.Dense, units, activation=activation)


NORM, RELU, MEAN = layers.BatchNormalization, layers.ReLU, layers.GlobalAveragePooling2D
HALF, FLAT = on(layers.MaxPooling2D, 2), layers.Flatten


def transformer(shape: tuple[int, ...]) -> keras.Model:
    """Return a small vision transformer of Keras's layers."""
    images = layers.Input(shape)
    x = layers.Conv2D(32, 8, strides=8)(images)
    x = layers.Reshape((-1, 32))(x)
    for _ in range(2):
        normed = layers.LayerNormalization(epsilon=1e-6)(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 8)(normed, normed)])
        normed = layers.LayerNormalization(epsilon=1e-6)(x)
        x = layers.Add()([x, layers.Dense(32)(layers.Dense(48, activation="gelu")(normed))])
    return keras.Model(images, layers.Dense(CLASSES)(layers.GlobalAveragePooling1D()(x)))


def squeeze_excitation(shape: tuple[int, ...]) -> keras.Model:
    """Return a net whose channels are weighted by an own gate."""
    images = layers.Input(shape)
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same")(images)))
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(16, 1, activation="hard_sigmoid")(layers.Conv2D(4, 1, activation="silu")(gate))
    x = layers.Multiply()([x, gate])
    return keras.Model(images, layers.Dense(CLASSES, activation="softmax")(layers.GlobalMaxPooling2D()(x)))


def hourglass(shape: tuple[int, ...]) -> keras.Model:
    """Return a net that shrinks and enlarges its images in three ways."""
    images = layers.Input(shape)
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(images)
    near = layers.UpSampling2D(2)(x)
    smooth = layers.UpSampling2D(2, interpolation="bilinear")(x)
    learned = layers.Conv2DTranspose(8, 3, strides=2, padding="same")(x)
    x = layers.Concatenate()([near, smooth, learned])
    x = layers.Conv2D(16, 3, strides=2, activation="leaky_relu")(x)
    return keras.Model(images, layers.Dense(CLASSES, activation="softmax")(layers.Flatten()(x)))


def ensemble(shape: tuple[int, ...]) -> keras.Model:
    """Return the mean of the probabilities of two nets."""
    images = layers.Input(shape)
    parts = []
    for size in (3, 5):
        x = layers.Conv2D(8, size, activation="relu")(images)
        parts.append(layers.Dense(CLASSES, activation="softmax")(layers.GlobalAveragePooling2D()(x)))
    return keras.Model(images, layers.Average()(parts))


def activations(shape: tuple[int, ...]) -> keras.Model:
    """Return a net with many activations side by side."""
    kinds = ["elu", "selu", "silu", "gelu", "hard_silu", "hard_sigmoid", "tanh", "softplus", "softsign", "mish"]
    kinds += ["relu6", "leaky_relu", "celu", "sigmoid"]
    images = layers.Input(shape)
    x = layers.Conv2D(8, 3)(images)
    parts = [layers.Activation(kind)(x) for kind in kinds] + [layers.PReLU(shared_axes=[1, 2])(x)]
    x = layers.GlobalAveragePooling2D()(layers.Concatenate()(parts))
    return keras.Model(images, layers.Dense(CLASSES)(x))


V2_BLOCKS = efficientnet_v2.DEFAULT_BLOCKS_ARGS["efficientnetv2-b0"]

FAMILIES: dict[str, Family] = {
    # keras.applications, made small by their own parameters
    "resnet": Family(residual("v1", (8, 16))),
    "resnet-v2": Family(residual("v2", (8, 16))),
    "densenet": Family(application(densenet.DenseNet, [1, 2, 2, 1])),
    "mobilenet": Family(application(apps.MobileNet, alpha=0.25)),
    "mobilenet-v2": Family(application(apps.MobileNetV2, alpha=0.35)),
    "mobilenet-v3-small": Family(application(apps.MobileNetV3Small, alpha=0.35), teacher=PIXELS),
    "mobilenet-v3-minimal": Family(application(apps.MobileNetV3Small, alpha=0.35, minimalistic=True), teacher=PIXELS),
    "efficientnet": Family(application(efficientnet.EfficientNet, 0.25, 0.3, 64), (64, 64, 3), teacher=PIXELS),
    "efficientnet-v2": Family(
        application(
            efficientnet_v2.EfficientNetV2,
            0.25,
            0.25,
            64,
            blocks_args=V2_BLOCKS,
        ),
        (64, 64, 3),
        teacher=PIXELS,
    ),
    "convnext": Family(
        application(convnext.ConvNeXt, [1, 1, 1, 1], [8, 16, 24, 32], classifier_activation=None),
        (64, 64, 3),
        probabilities=False,
        teacher=PIXELS,
    ),
    "nasnet": Family(
        application(nasnet.NASNet, penultimate_filters=96, num_blocks=1, stem_block_filters=8, skip_reduction=False)
    ),
    # the same in the size that people use
    "resnet50-224": Family(
        application(apps.ResNet50, classifier_activation=None), (224, 224, 3), probabilities=False, few=True
    ),
    "mobilenet-v2-224": Family(application(apps.MobileNetV2), (224, 224, 3), few=True),
    "efficientnet-b0-224": Family(application(apps.EfficientNetB0), (224, 224, 3), teacher=PIXELS, few=True),
    "xception-96": Family(application(apps.Xception), (96, 96, 3), few=True),
    "inception-v3-96": Family(application(apps.InceptionV3), (96, 96, 3), few=True),
    # nets of single layers
    "cnn": Family(sequence(conv(), NORM, RELU, HALF, conv(16), NORM, RELU, FLAT, on(layers.Dropout, 0.3), dense())),
    "cnn-logits": Family(sequence(conv(activation="relu"), HALF, FLAT, dense(None)), probabilities=False),
    "cnn-grey": Family(sequence(conv(activation="relu"), HALF, FLAT, dense()), (28, 28, 1)),
    "separable": Family(
        sequence(
            on(layers.SeparableConv2D, 16, 3, padding="same", activation="relu"),
            on(layers.DepthwiseConv2D, 3, strides=2, padding="same", depth_multiplier=2),
            on(layers.BatchNormalization, scale=False),
            RELU,
            conv(32, dilation_rate=2, groups=4),
            MEAN,
            dense(),
        )
    ),
    "pools": Family(
        sequence(
            on(layers.ZeroPadding2D, ((1, 0), (0, 1))),
            conv(8, strides=2),
            on(layers.MaxPooling2D, 3, 2, padding="same"),
            on(layers.Cropping2D, ((1, 0), (0, 1))),
            on(layers.AveragePooling2D, 3, 2, padding="same"),
            on(layers.GlobalMaxPooling2D),
            dense(),
        ),
    ),
    "norms": Family(
        sequence(
            conv(8),
            on(layers.GroupNormalization, 4),
            on(layers.Activation, "silu"),
            conv(16, strides=2),
            layers.LayerNormalization,
            on(layers.SpatialDropout2D, 0.1),
            MEAN,
            layers.UnitNormalization,
            dense(None),
        ),
        probabilities=False,
    ),
    "resized": Family(
        sequence(
            on(layers.Resizing, 24, 24), on(layers.Rescaling, 1 / 127.5, -1.0), conv(activation="relu"), FLAT, dense()
        ),
        teacher=PIXELS,
    ),
    "normalization": Family(
        sequence(
            on(layers.Normalization, mean=[120.0, 110.0, 100.0], variance=[60.0**2, 55.0**2, 50.0**2]),
            conv(activation="relu"),
            HALF,
            FLAT,
            dense(),
        ),
        teacher=PIXELS,
    ),
    "bytes": Family(
        sequence(
            on(layers.Rescaling, 1 / 255.0),
            conv(activation="relu"),
            HALF,
            conv(16, activation="relu"),
            MEAN,
            dense(),
            dtype="uint8",
        )
    ),
    "binary": Family(sequence(conv(activation="relu"), HALF, FLAT, dense("sigmoid", 1))),
    "rows": Family(
        sequence(on(layers.Dense, 32, activation="relu"), NORM, dense()),
        (784,),
        teacher={"input": {"shape": [1, 28, 28]}},
    ),
    "grey-without-channels": Family(
        sequence(on(layers.Reshape, (28, 28, 1)), conv(activation="relu"), HALF, FLAT, dense()),
        (28, 28),
        teacher={"input": {"shape": [1, 28, 28]}},
    ),
    "transposed-inside": Family(
        sequence(on(layers.Permute, (3, 1, 2)), FLAT, on(layers.Dense, 32, activation="relu"), dense()),
        teacher={"input": {"layout": "NHWC"}},
    ),
    "flat-mlp": Family(
        sequence(FLAT, on(layers.Dense, 32, activation="relu"), dense()), teacher={"input": {"layout": "NHWC"}}
    ),
    "conv-head": Family(sequence(conv(activation="relu", strides=2), conv(CLASSES, 1), MEAN, layers.Softmax)),
    "transformer": Family(transformer, probabilities=False),
    "squeeze-excitation": Family(squeeze_excitation),
    "hourglass": Family(hourglass),
    "ensemble": Family(ensemble),
    "activations": Family(activations, probabilities=False),
    "recurrent": Family(
        sequence(conv(activation="relu", strides=2), on(layers.Reshape, (16, 128)), on(layers.GRU, 16), dense())
    ),
}


def randomised(model: keras.Model) -> keras.Model:
    """Return the model with weights that keep its signals alive."""
    seeds = keras.random.SeedGenerator(0)
    for weight in model.weights:
        name, shape = weight.path.rsplit("/", 1)[-1], tuple(weight.shape)
        if name in ("gamma", "alpha"):
            weight.assign(1 + 0.1 * keras.random.normal(shape, seed=seeds))
        elif name in ("bias", "beta"):
            weight.assign(0.1 * keras.random.normal(shape, seed=seeds))
        elif name.endswith("kernel") and len(shape) > 1:
            inputs = 9 if "depthwise" in name else int(ops.prod(shape[:-1]))
            weight.assign(keras.random.normal(shape, stddev=(1.5 / inputs) ** 0.5, seed=seeds))
    return model
