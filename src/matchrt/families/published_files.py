"""The table of published files of weights. A family's models name their files here.

Sizes and digests are measurements that agree, by people who are independent of each other where that is possible;
authors publish none. A digest that nobody has measured is left out. Licences are stated for each file, with a date,
because they change: what a repository says today is not what it said when its weights were published.
"""

from __future__ import annotations

from matchrt.families.published import Address, Archive, Licence, PublishedFile

# The day on which statements of licences were read that carry no date of their own.
_READ = "2026-11-27"
_RELICENSED = "2026-09-15"


def _drive(file_id: str, archive: Archive | None = None) -> Address:
    """The address that Google Drive gives a public file's bytes at, without its page about large files."""
    url = f"https://drive.usercontent.google.com/download?id={file_id}&export=download&confirm=t"
    return Address(url, "the authors, on Google Drive", archive)


def _drive_page(file_id: str) -> str:
    return f"https://drive.google.com/file/d/{file_id}/view"


def _hugging_face(repository: str, path: str, by: str, revision: str = "main") -> Address:
    return Address(f"https://huggingface.co/{repository}/resolve/{revision}/{path}", by)


def _kornia(name: str) -> tuple[Address, Address]:
    """kornia's copies of LoFTR's files."""
    return (
        _hugging_face("kornia/loftr", name, "kornia, on Hugging Face"),
        Address(f"http://cmp.felk.cvut.cz/~mishkdmy/models/{name}", "kornia's older server"),
    )


# LoFTR.

_LOFTR_REPOSITORY = "https://github.com/zju3dv/LoFTR"
_LOFTR_LICENCE = Licence(
    "Apache-2.0",
    _READ,
    "read",
    "The authors' repository is Apache-2.0. It does not mention the weights.",
    commercial=True,
)
_SCANNET_LICENCE = Licence(
    "Apache-2.0",
    _READ,
    "read",
    "The authors' repository is Apache-2.0. It does not mention the weights. They were trained on ScanNet, which is "
    "for non-commercial use.",
)
_OUTDOOR, _INDOOR_NEW = "1M-VD35-qdB5Iw-AtbDBCKC7hPolFW9UY", "19s3QvcCWQ6g-N1PrYlDCg-2mOJZ3kkgS"

LOFTR_OUTDOOR = PublishedFile(
    name="outdoor_ds.ckpt",
    title="LoFTR's outdoor weights",
    page=_drive_page(_OUTDOOR),
    addresses=(_drive(_OUTDOOR), *_kornia("loftr_outdoor.ckpt")),
    licence=_LOFTR_LICENCE,
    bytes=46_341_978,
    sha256="21f5bec5968178e8bc8b7633441836fe5de4f47d861dd2cd7dc38e271b0479ec",
)
LOFTR_INDOOR = PublishedFile(
    name="indoor_ds.ckpt",
    title="LoFTR's indoor weights",
    page=f"{_LOFTR_REPOSITORY} (the weights folder that the README links)",
    # The authors have it in a folder of Google Drive only. kornia's older server is plain http, and no digest is known.
    addresses=(_kornia("loftr_indoor.ckpt")[0],),
    licence=_SCANNET_LICENCE,
)
LOFTR_INDOOR_NEW = PublishedFile(
    name="indoor_ds_new.ckpt",
    title="LoFTR's newer indoor weights",
    page=_drive_page(_INDOOR_NEW),
    addresses=(_drive(_INDOOR_NEW), *_kornia("loftr_indoor_ds_new.ckpt")),
    licence=_SCANNET_LICENCE,
    sha256="be9ff88b323ec27889114719f668ae41aff7034b56a4c4acbd46b8b180b87ed3",
)


# Coarse-LoFTR.


def _coarse(name: str, title: str, sha256: str) -> PublishedFile:
    commit = "7fd2a10cf92b015f5761004aeb1cae99372a5d46"
    repository = "Kolkir/Coarse_LoFTR_TRT"
    return PublishedFile(
        name=name,
        title=title,
        page=f"https://github.com/{repository}/tree/main/weights",
        addresses=(
            Address(f"https://raw.githubusercontent.com/{repository}/{commit}/weights/{name}", "the author, on GitHub"),
        ),
        licence=Licence(
            "Apache-2.0",
            _READ,
            "read",
            "The licence of the author's repository, which holds the file.",
            commercial=True,
        ),
        bytes=1_759_819,
        sha256=sha256,
    )


COARSE_LOFTR = (
    _coarse(
        "LoFTR_teacher.pt",
        "Coarse-LoFTR, trained with a teacher",
        "5446241c5713a91c868e0b1b2795c253b3d216b4011b6942fcc6a697fad3c554",
    ),
    _coarse(
        "LoFTR_no_teacher.pt",
        "Coarse-LoFTR, trained without a teacher",
        "2944f319be776c8ce4794ce719cc14b0a3536c667989059088b8f7c34131f253",
    ),
)


# EfficientLoFTR and MatchAnything.

_PRL = "Project Registration License v1.0"
_ELOFTR_LICENCE = Licence(
    _PRL,
    _RELICENSED,
    "since",
    "The authors changed the licence of EfficientLoFTR on that day; it was Apache-2.0 until then. As others report it, "
    "research is free and organisations register. Read the text in github.com/zju3dv/EfficientLoFTR.",
)
_MATCHANYTHING_LICENCE = Licence(
    _PRL,
    _RELICENSED,
    "since",
    "The authors changed the licence of MatchAnything on that day; it was Apache-2.0 until then, and their Space on "
    "Hugging Face still says so. As others report it, research is free and organisations register. Read the text in "
    "github.com/zju3dv/MatchAnything.",
)


def _card(repository: str, code: str) -> Licence:
    return Licence(
        "Apache-2.0 by its card",
        _READ,
        "read",
        f"The card of {repository} says Apache-2.0. The authors changed the licence of {code} to the {_PRL} on "
        f"{_RELICENSED}: which of the two holds for this file is not said.",
    )


_ELOFTR_DRIVE = "1jFy2JbMKlIp82541TakhQPaoyB5qDeic"
_ELOFTR_HF, _MATCHANYTHING_HF = "zju-community/efficientloftr", "zju-community/matchanything_eloftr"
_MATCHANYTHING_DRIVE, _MATCHANYTHING_ZIP = "12L3g9-w8rR9K2L4rYaGaDJ7NqX1D713d", 482_746_196

# A third of the other file's size, because it holds no state of the training.
ELOFTR_SAFETENSORS = PublishedFile(
    name="efficientloftr.safetensors",
    title=f"model.safetensors of {_ELOFTR_HF}",
    page=f"https://huggingface.co/{_ELOFTR_HF}",
    addresses=(
        _hugging_face(
            _ELOFTR_HF,
            "model.safetensors",
            "the authors, on Hugging Face",
            "face1a79050ffa3e9da28720d1cf93aaf2e8f421",
        ),
    ),
    licence=_card(_ELOFTR_HF, "EfficientLoFTR"),
    about_bytes=64_300_000,
    sha256="00a5edc343fa222eba763643553548ad37a05aa3d00d266553c9f6cf67bb0e64",
)
ELOFTR_CHECKPOINT = PublishedFile(
    name="eloftr_outdoor.ckpt",
    title="EfficientLoFTR's training checkpoint",
    page=_drive_page(_ELOFTR_DRIVE),
    addresses=(
        _drive(_ELOFTR_DRIVE),
        _hugging_face("Realcat/imcui_checkpoints", "eloftr/eloftr_outdoor.ckpt", "imcui, on Hugging Face"),
    ),
    licence=_ELOFTR_LICENCE,
    about_bytes=183_870_000,
    sha256="0af6291141c736e75e94b7f8aae4399b77c7731b3f08758212b2cfe370188878",
)
ELOFTR = (ELOFTR_SAFETENSORS, ELOFTR_CHECKPOINT)

MATCHANYTHING_ELOFTR = (
    # The zip file is seven times larger than the one of its two members that this model needs.
    PublishedFile(
        name="matchanything_eloftr.safetensors",
        title=f"model.safetensors of {_MATCHANYTHING_HF}",
        page=f"https://huggingface.co/{_MATCHANYTHING_HF}",
        addresses=(
            _hugging_face(_MATCHANYTHING_HF, "model.safetensors", "the authors, on Hugging Face", "7bd52a4"),
            _hugging_face(_MATCHANYTHING_HF, "model.safetensors", "the authors, on Hugging Face"),
        ),
        licence=_card(_MATCHANYTHING_HF, "MatchAnything"),
        bytes=64_263_488,
    ),
    PublishedFile(
        name="matchanything_eloftr.ckpt",
        title="MatchAnything's EfficientLoFTR, out of weights.zip",
        page=_drive_page(_MATCHANYTHING_DRIVE),
        addresses=(_drive(_MATCHANYTHING_DRIVE, Archive("matchanything_eloftr.ckpt", _MATCHANYTHING_ZIP)),),
        licence=_MATCHANYTHING_LICENCE,
        bytes=64_366_723,
        sha256="b394fd368488e5e3136906daac825fadd3dd5376755dcdf5cb6ede0de20f6e7e",
    ),
)
MATCHANYTHING_ROMA = PublishedFile(
    name="matchanything_roma.ckpt",
    title="MatchAnything's RoMa, out of weights.zip",
    page=_drive_page(_MATCHANYTHING_DRIVE),
    addresses=(_drive(_MATCHANYTHING_DRIVE, Archive("matchanything_roma.ckpt", _MATCHANYTHING_ZIP)),),
    licence=_MATCHANYTHING_LICENCE,
    bytes=445_649_931,
)


# RoMa and DINOv2.

_ROMA_PAGE = "https://github.com/Parskatt/storage/releases/tag/roma"


def _roma(name: str, osf: str) -> tuple[Address, Address]:
    return (
        Address(f"https://github.com/Parskatt/storage/releases/download/roma/{name}", "the author, on GitHub"),
        Address(f"https://osf.io/{osf}/download", "a copy on osf.io"),
    )


ROMA_OUTDOOR = PublishedFile(
    name="roma_outdoor.pth",
    title="RoMa's outdoor weights",
    page=_ROMA_PAGE,
    addresses=_roma("roma_outdoor.pth", "cmzpa"),
    licence=Licence(
        "MIT",
        _READ,
        "read",
        "The author calls the weights that were trained on MegaDepth MIT (Parskatt/DKM#42).",
        commercial=True,
    ),
    bytes=445_647_516,
    sha256="c7a45c80d41ad788a63c641d1b686d7cb3f297f40097c6f4e75039889e5cc8ba",
)
ROMA_INDOOR = PublishedFile(
    name="roma_indoor.pth",
    title="RoMa's indoor weights",
    page=_ROMA_PAGE,
    addresses=_roma("roma_indoor.pth", "uzx64"),
    licence=Licence(
        "unclear",
        _READ,
        "read",
        "The code is MIT. The author cannot say what holds for these weights, because ScanNet, on which they were "
        "trained, is for non-commercial use (Parskatt/RoMa#17).",
    ),
    md5="349a17aaa21883bb164b1a5884febb21",
)
ROMAV2 = PublishedFile(
    name="romav2.0.1.pt",
    title="RoMa v2's weights, of version 2.0.1",
    page="https://github.com/Parskatt/RoMaV2/releases/tag/v2.0.1",
    addresses=(
        Address(
            "https://github.com/Parskatt/RoMaV2/releases/download/v2.0.1/romav2.0.1.pt",
            "the author, on GitHub",
        ),
    ),
    licence=Licence(
        "MIT and the DINOv3 License",
        _READ,
        "read",
        "By the author's README all but DINOv3 is MIT. The file holds weights of DINOv3, so it and what is made of it, "
        "engines too, fall most likely under Meta's DINOv3 License: pass them on under that agreement only, with a "
        "copy of it; acknowledge DINOv3 in publications; no military or ITAR use, nuclear use, espionage or weapons, "
        "and no reverse engineering. It ends if you sue Meta over it. Commercial use is not excluded.",
    ),
    bytes=1_095_883_548,
    sha256="1557dec0d21b62366465f7ff4d5fdf228cc695d0582e196ad2b80e05230828b7",
)
DINOV2_FACEBOOK = PublishedFile(
    name="dinov2_vitl14_pretrain.pth",
    title="DINOv2 ViT-L/14 of Facebook",
    page="https://github.com/facebookresearch/dinov2",
    addresses=(
        Address(
            "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
            "the authors, on their server",
        ),
        Address("https://osf.io/tmj5c/download", "a copy on osf.io"),
    ),
    licence=Licence(
        "Apache-2.0", _READ, "read", "Code and weights, by the authors' README and model card.", commercial=True
    ),
    bytes=1_217_586_395,
    sha256="d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
)
DINOV2_HUGGING_FACE = PublishedFile(
    name="dinov2-large.safetensors",
    title="model.safetensors of facebook/dinov2-large",
    page="https://huggingface.co/facebook/dinov2-large",
    addresses=(
        _hugging_face(
            "facebook/dinov2-large",
            "model.safetensors",
            "the authors, on Hugging Face",
            "47b73eefe95e8d44ec3623f8890bd894b6ea2d6c",
        ),
    ),
    licence=Licence("Apache-2.0", _READ, "read", "By the card of facebook/dinov2-large.", commercial=True),
    bytes=1_217_522_888,
    sha256="399fba97a95f22c36834418bc69373364a99af3a1153da1c0fb31db567c92e23",
)
DINOV2 = (DINOV2_FACEBOOK, DINOV2_HUGGING_FACE)


# MINIMA: networks of this table, trained across modalities.

_MINIMA_LICENCE = Licence(
    "Apache-2.0",
    _READ,
    "read",
    "By the badge in the README of the authors' repository (LSXI7/MINIMA), which does not mention the weights.",
    commercial=True,
)


def _minima(name: str, title: str, size: int, sha256: str | None = None) -> PublishedFile:
    release = "https://github.com/LSXI7/storage/releases"
    return PublishedFile(
        name=name,
        title=title,
        page=f"{release}/tag/MINIMA",
        addresses=(
            Address(f"{release}/download/MINIMA/{name}", "the authors, on GitHub"),
            _hugging_face("lsxi77777/MINIMA", name, "the authors, on Hugging Face"),
        ),
        licence=_MINIMA_LICENCE,
        bytes=size,
        sha256=sha256,
    )


MINIMA_LOFTR = _minima(
    "minima_loftr.ckpt",
    "MINIMA's LoFTR",
    46_350_788,
    "810d19773ff898ba04a68c99a3eff9c112210bf884214bd76aec885e83b0e257",
)
MINIMA_ROMA = _minima(
    "minima_roma.pth",
    "MINIMA's RoMa",
    445_638_463,
    "17f3923bd780e8f1450792706e0643f70c8864ad11bf5fd4f2b54714bac23538",
)
MINIMA_ELOFTR = _minima("minima_eloftr.ckpt", "MINIMA's EfficientLoFTR", 64_369_865)
MINIMA_XOFTR = _minima(
    "minima_xoftr.ckpt",
    "MINIMA's XoFTR",
    44_484_144,
    "551eaa814713b3c60ca380eda022be9b7609e51737302e12370f8943a1e864d7",
)


# XoFTR.

_XOFTR_DRIVE = "1oRkEGsLpPIxlulc6a7c2q5H1XTNbfkVj"
_XOFTR_LICENCE = Licence(
    "Apache-2.0",
    _READ,
    "read",
    "The authors' repository (OnderT/XoFTR) is Apache-2.0, and does not mention the weights. They were pre-trained on "
    "KAIST's multispectral images, whose terms have not been checked here.",
    commercial=True,
)
XOFTR = (
    PublishedFile(
        name="weights_xoftr_640.ckpt",
        title="XoFTR's weights for images of 640 pixels",
        page=_drive_page(_XOFTR_DRIVE),
        addresses=(_drive(_XOFTR_DRIVE),),
        licence=_XOFTR_LICENCE,
        bytes=44_486_099,
        sha256="6e7f24e553f76746ef49061bf44c7d11252e56057470d1421bcd4e6506af3a67",
    ),
    PublishedFile(
        name="xoftr_640.safetensors",
        title="the same weights, as vismatch offers them",
        page="https://huggingface.co/vismatch/xoftr",
        addresses=(_hugging_face("vismatch/xoftr", "xoftr_640.safetensors", "vismatch, on Hugging Face", "d8ee7d89"),),
        licence=_XOFTR_LICENCE,
        bytes=44_419_304,
        sha256="4d5ed62e8b41f862ecc5c660e31f1c450402966623d6a28e85acf7fbd794cc69",
    ),
)


# GIM.

_GIM_DRIVE = "1OGNbJdw9zn5zHC4WNQ0IMqdGCS0HMUfe"
GIM_ROMA = PublishedFile(
    name="gim_roma_100h.ckpt",
    title="GIM's RoMa, trained on 100 hours of video",
    page=_drive_page(_GIM_DRIVE),
    addresses=(_drive(_GIM_DRIVE),),
    licence=Licence(
        "MIT",
        _READ,
        "read",
        "The authors' README: the repository is MIT, and the model is provided for research purposes only; who uses it "
        "for anything else has to secure the rights (xuelunshen/gim).",
    ),
    sha256="0568a39fa9154bc60ab67badf1a49d4da7860761f87eb2149dc5e9daa02e5a05",
)
