"""LoFTR in Flax: the stages of `matchrt.models.loftr.network`, configured by the same `LoFTRConfig`.

It uses Flax NNX and not Linen, for three reasons. NNX is the API that Flax develops, while Linen is only maintained. A
module's state has the names of its attributes, which can be the checkpoint's names. And the network is an ordinary
object, whose stages can be called, tested and trained one by one, as in torch.

Channels come last everywhere (`[B,H,W,C]`), which suits XLA. Shapes are static, so everything runs under `nnx.jit`.
"""
