"""The lecture's image model: it tells a person's sex from a photograph.

A convolutional network makes features of the photograph, two recurrent layers read them as sequences in two
dimensions (ReSeg: Visin et al. 2016), and a last convolution, averaged over all places, scores the classes. Each size
of a feature map stands beside its layer, for the lecture's photographs of 3 × 128 × 128.

    graphc train examples/reseg.py --images FOLDER
"""

import graphc as gc


def reseg(classes: int = 2, image: tuple[int, int, int] = (3, 128, 128)) -> gc.Graph:
    """`image` is (channels, height, width), the sides multiples of 32. Pixels are 0 to 255."""
    g = gc.Graph("reseg")
    n = g.axis("n")
    x = g.input("image", image, over=n) / 128

    def norm(v: gc.Value, name: str) -> gc.Value:
        return gc.layers.batch_norm(g, v, over=n, name=name, convention="neon")

    def conv(v: gc.Value, filters: int, name: str) -> gc.Value:
        return gc.relu(gc.layers.conv(g, v, filters, size=3, padding=2, dilation=2, name=name))

    x = norm(x, "norm_0")
    x = norm(conv(x, 32, "conv_1"), "norm_1")  # 32 × 128 × 128
    x = gc.max_pool(x, size=3, stride=2, padding=1)  # 32 × 64 × 64
    x = norm(conv(x, 64, "conv_2"), "norm_2")
    x = gc.max_pool(x, size=3, stride=2, padding=1)  # 64 × 32 × 32
    x = norm(conv(x, 128, "conv_3"), "norm_3")
    x = gc.max_pool(x, size=3, stride=2, padding=1)  # 128 × 16 × 16
    x = norm(conv(x, 256, "conv_4"), "norm_4")  # 256 × 16 × 16
    x = gc.cells.spatial_rnn(g, x, units=256, size=2, name="rnn_5", U_init="glorot_uniform").image  # 512 × 8 × 8
    x = norm(x, "norm_5")
    x = gc.cells.spatial_rnn(g, x, units=512, size=2, name="rnn_6", U_init="glorot_uniform").image  # 1024 × 4 × 4
    x = norm(x, "norm_6")
    x = gc.relu(gc.layers.conv(g, x, classes, size=1, padding=1, name="conv_7"))  # classes × 6 × 6
    scores = gc.mean(x, dim=(1, 2))
    g.output("probabilities", gc.softmax(scores))
    label = g.input("label", (), over=n, dtype="int32")
    g.output("loss", gc.mean(gc.cross_entropy(scores, label), over=n))
    return g
