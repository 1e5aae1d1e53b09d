"""Rules of the RoMa family. What each is worth was measured: docs/models/roma.md."""

from __future__ import annotations

from matchrt.export.precision.rules import Nodes, PrecisionRules, Rule

_REFINER = ("decoder.conv_refiner.*",)
_SAMPLE = ("decoder.conv_refiner.*.sample", "decoder.conv_refiner.*.correlation")

_IMAGE = Rule(
    "image",
    "fp32",
    "bytes / 255 and ImageNet's mean, rounded once where the first convolution takes them",
    (Nodes(("graph",)),),
)
_GAUSSIAN_PROCESS = Rule(
    "gaussian-process",
    "fp32",
    "the kernel matrix has a condition of up to 1e4: with 11 bits no digit of the solution is left; the Fourier "
    "coordinates are cosines of 25 times the weights, many turns",
    (Nodes(("decoder.gps.*", "decoder.gps.*.**")),),
)
_POSITIONS = Rule(
    "positions",
    "fp32",
    "pixel positions up to 864: fp16 values are half a pixel apart there",
    (
        Nodes(("decoder.conv_refiner.*.sample.positions", "decoder.conv_refiner.*.correlation.positions")),
        Nodes(_REFINER, ("Sub", "Mul", "Div", "Add", "Cast")),
    ),
)
_INTERPOLATION = Rule(
    "window-interpolation",
    "fp32",
    "fractions of pixels meet the correlations here; a few values a pixel",
    (Nodes(("decoder.conv_refiner.*.correlation.interpolate",)),),
)
_FLOW = Rule(
    "flow",
    "fp32",
    "the refiners' last layer, the flow and the certainty: what is returned, summed over all scales",
    (Nodes(("decoder.conv_refiner.*.out_conv", "network")),),
)
_REFINER_INPUT = Rule(
    "refiner-input",
    "fp16",
    "features, sampled features, embedded displacement and correlations, all of order 1 to 10, join in one type",
    (Nodes(_REFINER, ("Concat", "Pad")), Nodes(("decoder.conv_refiner.*.disp_emb",))),
)
_SAMPLING = Rule(
    "sampling",
    "fp16",
    "rows of features times weights in 0..1, or times the other image's features divided by sqrt(C): sums of order 10",
    (Nodes(_SAMPLE),),
)
_REFINER_BLOCKS = Rule(
    "refiner-blocks",
    "fp16",
    "tensor cores, and most of the decoder's arithmetic",
    (Nodes(("decoder.conv_refiner.*.block1.**", "decoder.conv_refiner.*.hidden_blocks.**", "decoder.proj.**")),),
)
_MATCH_DECODER = Rule(
    "match-decoder",
    "fp16",
    "as the official code runs it; norms compute in fp32 inside, and of the anchors' logits only differences count",
    (Nodes(("decoder.embedding_decoder", "decoder.embedding_decoder.**")),),
)
_ENCODERS = Rule(
    "encoders",
    "fp16",
    "as the official code runs them; norms compute in fp32 inside",
    (Nodes(("encoder.cnn", "encoder.cnn.**", "dinov2", "dinov2.**")),),
)

ROMA = PrecisionRules(
    "roma",
    (
        *(_IMAGE, _GAUSSIAN_PROCESS, _POSITIONS, _INTERPOLATION, _FLOW),
        *(_REFINER_INPUT, _SAMPLING, _REFINER_BLOCKS, _MATCH_DECODER, _ENCODERS),
    ),
)
