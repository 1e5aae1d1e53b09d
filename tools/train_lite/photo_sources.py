"""Where the training photographs come from: Debian packages of free content, and which of their files are used."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """One Debian package.

    include, exclude: regular expressions on the path inside the package (members of archives as `archive!member`).
    limit: at most this many files, taken in the order of their sha256, so that the choice is stable.
    kind: 'photo' or 'texture' (tiling photographic surfaces from games and simulators).
    """

    package: str
    version: str
    licence: str
    kind: str
    include: str
    exclude: str = r"(?!)"
    limit: int = 200
    min_side: int = 420

    @property
    def long_side(self) -> int:
        """Images are reduced to this many pixels along the longer side."""
        return 1280 if self.kind == "photo" else 640


_DRAWN = (
    r"screenshot|1080x1920|720x1440|1622x2880|images_dark|Altai|IceCold|/Flow/|/Kay/|Opal|Patak|Volna|PastelHills|"
    r"Canopee|Cascade|/Kite/|FlyingKonqui|SafeLanding|Elarun|Honeywave|Kokkini|/Shell/|Cluster|MilkyWay|summer_1am"
)

_EVALUATION = r"astronaut|brick|chelsea|coffee|rocket|motorcycle|china"

SOURCES: tuple[Source, ...] = (
    Source("plasma-workspace-wallpapers", "4:5.27.5-2", "GPL-2+", "photo", r"wallpapers/", _DRAWN),
    Source("gnome-backgrounds", "43.1-1", "GPL-2+, CC-BY-SA-3.0", "photo", r"gnome/wood"),
    Source(
        "mate-backgrounds",
        "1.26.0-1",
        "GPL-2+",
        "photo",
        r"mate/(nature|desktop/Green|abstract/El)",
        "_5640",
    ),
    Source("ukui-wallpapers", "20.04.3-1.1", "CC-BY-SA-3.0", "photo", r"backgrounds/"),
    Source("lomiri-wallpapers-16.04", "20.04.0-2", "CC-BY-4.0, CC-BY-SA-4.0, CC0-1.0", "photo", r"backgrounds/"),
    Source("lomiri-wallpapers-20.04", "20.04.0-2", "CC-BY-SA-3.0", "photo", r"backgrounds/"),
    Source(
        "lxqt-themes",
        "1.2.0-1",
        "LGPL-2.1+",
        "photo",
        r"fog|after-the|Butterfly|flowers|Valendas|appleflower",
    ),
    Source("kphotoalbum", "5.9.1-1", "GPL-2+", "photo", r"demo/.*jpg$", min_side=300),
    Source(
        "gcompris-qt-data",
        "3.1-2",
        "CC-BY-SA-2.0 to 4.0, CC-BY, public domain, GPL-3+",
        "photo",
        r"rcc!",
        limit=400,
        min_side=400,
    ),
    Source("python3-skimage", "0.19.3-8", "BSD-3-Clause", "photo", r"skimage/data/", _EVALUATION + "|logo|chess|text"),
    Source("python3-sklearn", "1.2.1+dfsg-1", "CC-BY-2.0", "photo", r"images/flower"),
    Source(
        "opencv-doc",
        "4.6.0+dfsg-12",
        "Apache-2.0, BSD-3-Clause",
        "photo",
        r"examples/.*\.(jpg|png)$|html/(feature_building|detect_test1|corridor_fld)",
        r"aloe|graf|box|pic\d|gradient|chessboard|ellipses|digits|/ml\.|segmented_word|trimap|data/(left|right)\d",
        min_side=300,
    ),
    Source(
        "visp-images-data",
        "3.5.0-1",
        "GPL-2",
        "photo",
        r"Klimt/Klimt\.png|Solvay.*2126x1463\.jpg|castel/chateau|mbt/cube\.ppm",
    ),
    Source("stellarium-data", "0.22.2-1", "GPL-2+", "photo", r"landscapes/|textures/", r"dso|milky|star|icon"),
    Source(
        "hugin-data",
        "2022.0.0+dfsg-2",
        "GPL-2+, GFDL",
        "photo",
        r"help_en_EN/.*\.jpg$",
        r"Celeste|Alias|CA_",
        min_side=200,
    ),
    Source("torcs-data", "1.3.7+dfsg-5", "Free Art License, GPL-2+", "texture", r"tracks/", limit=36),
    Source(
        "trigger-rally-data", "0.6.6.1-3", "GPL-2+, CC0, CC-BY-3.0, CC-BY-SA-3.0", "texture", r".", r"maps/", limit=16
    ),
    Source(
        "ufoai-textures",
        "2.5-2",
        "GPL-2+, CC-BY-SA-3.0, CC-BY-3.0, public domain",
        "texture",
        r"textures/",
        r"_(nm|gm|sm)\.|tex_common",
        limit=80,
    ),
    Source("openarena-081-textures", "0.8.5split-14", "GPL-2+", "texture", r"textures/", limit=36),
    Source(
        "nexuiz-textures", "2.5.2-12", "GPL-2+", "texture", r"textures/", r"_(norm|gloss|glow|bump|local)\.", limit=50
    ),
    Source(
        "redeclipse-data",
        "1.6.0-1",
        "CC-BY-SA-3.0, CC-BY-3.0, CC0-1.0, Zlib",
        "texture",
        r"textures/|trak|philipk|blindabuser|dziq",
        r"_(n|s|h|g|nm|nrm|normal|spec|glow|height|bump|local)[_.]|models|player|weapon",
        limit=50,
    ),
    Source("mypaint-data-extras", "2.0.1-9", "CC0-1.0", "texture", r"backgrounds/", limit=6),
    Source(
        "supertuxkart-data",
        "1.4+dfsg-2",
        "CC-BY-SA-3.0/4.0, CC0, CC-BY-3.0, GPL",
        "texture",
        r"data/(textures|tracks|library)/",
        r"_normal|_nm|norm|gloss|lightmap",
        limit=90,
    ),
    Source(
        "flightgear-data-base",
        "1:2020.3.16+dfsg-1",
        "GPL-2+",
        "texture",
        r"Textures/(Terrain|Runway|osm2city|Trees|Globe)|Scenery/(Models|Objects)/",
        r"normal|_n\.|spec|mask|effect|overlay",
        limit=130,
    ),
)
