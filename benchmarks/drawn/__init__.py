"""Draws real test images for teachers that read documents: lines of text, and pages, upright and turned.

Everything is drawn with the fonts of the system. Debian's packages `fonts-dejavu-core`, `fonts-liberation`,
`fonts-freefont-ttf`, `fonts-noto-cjk` and `fonts-wqy-zenhei` give what the results of this repository were drawn with:

    apt-get install fontconfig fonts-dejavu-core fonts-liberation fonts-freefont-ttf fonts-noto-cjk fonts-wqy-zenhei

The drawings measure students and decide nothing; no distillation sees them. The product itself draws no glyphs.
Image number i of a seed is the same in every run with equal fonts, whatever was drawn before it.
"""
