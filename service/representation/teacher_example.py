"""The worked example of an uploaded teacher for the OpenAPI document."""

from typing import Any

TEACHER_ID = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

TEACHER: dict[str, Any] = {  # Any: JSON
    "id": TEACHER_ID,
    "bytes": 248913,
    "format": "onnx",
    "created_at": "2026-01-31T12:00:00Z",
    "inspection": {
        "format": "onnx",
        "opset": 18,
        "parameters": 61706,
        "input_shape": [1, 32, 32],
        "num_classes": 10,
        "interface": {
            "input_name": "images",
            "input_type": "float32",
            "layout": "NCHW",
            "input_rank": 4,
            "output_name": "logits",
            "output_type": "float32",
            "output_form": "logits",
            "output_shape": [10],
        },
        "input_space": {
            "convention": "mnist",
            "mean": [0.1307],
            "std": [0.3081],
            "range": [0.0, 1.0],
            "certainty": "sure",
            "basis": "batchnorm",
            "distance": 0.77,
            "next_convention": "fashion-mnist",
            "next_distance": 1.04,
            "pictures": "strokes",
            "distances": {"zero-one": 1.9, "minus-one-one": 1.6, "bytes": 6.1, "mnist": 0.77, "fashion-mnist": 1.04},
            "told": None,
        },
    },
    "methods": {
        "served": ["dafl", "deepinversion", "pre_dfkd"],
        "unserved": [{"name": "ddad", "needs": ["batchnorm"], "because": "it has no BatchNorm layers"}],
        "auto": {
            "method": "pre_dfkd",
            "fallback": "dafl",
            "because": "the teacher has no BatchNorm statistics, so shapes matter more than refinement",
        },
    },
    "narrowed": {
        "possible": True,
        "because": None,
        "sizes": [
            {
                "width": 0.5,
                "parameters": 15738,
                "macs": 133740,
                "activation_bytes": 29464,
                "weight_bytes": 62952,
                "removed": 0.745,
            },
            {
                "width": 0.25,
                "parameters": 4157,
                "macs": 63040,
                "activation_bytes": 18280,
                "weight_bytes": 16628,
                "removed": 0.9326,
            },
        ],
    },
    "depth": None,
}
