"""LoFTR in Flax: the stages of `matchrt.models.loftr.network`, configured by the same `LoFTRConfig`.

Flax NNX, not Linen: NNX is the API that Flax develops (Linen is only maintained); a module's state is found under the
names of its attributes, so its names are the checkpoint's names; and the network is an ordinary
object, whose stages can be called, tested and trained one by one, as in torch.

Channels come last everywhere (`[B,H,W,C]`), as XLA likes them. Shapes are static, so everything runs under `nnx.jit`.
"""
