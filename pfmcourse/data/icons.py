"""Icons: small black pictures of things and signs, each with a name, from four fonts inside the package qtawesome.

A font of icons knows what each of its shapes is called: thousands of pictures with words, for nothing. The fonts are
Material Design Icons 6.9 (Apache 2.0), Phosphor 1.3 (MIT), Remix Icon 2.5 (Apache 2.0) and the solid Font Awesome Free
6.7 (SIL OFL 1.1; the icons CC BY 4.0). The names say what a picture shows, sometimes what it is for ("content save").

Left out are names with a digit or a single letter, which say little; a second style of the same icon in the same font
(outlined, filled, thin); and, as far as their first word tells, the marks of companies and products, which nobody can
name by what they show.
"""

import functools
import json
import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from pfmcourse import base
from pfmcourse.data import source

CARD = ("icons",)

FONTS = ("materialdesignicons6", "phosphor", "remixicon", "fontawesome6-solid")
EM = 0.875  # of a picture's width: an icon fills its em, and a margin is left around it
INK = 15 / 1024  # a picture with a smaller share of dark pixels is an empty one

# The first words, in two of the fonts, of marks of companies, products, programming languages and standards. A name
# that ends with "logo" is one as well, which is how Phosphor names them. Font Awesome keeps them in a font of its own.
_MARKS = """
airplay alipay amazon android angular angularjs ansible apache apple arch artstation atlassian aws baidu
bandcamp behance bilibili bitbucket bitcoin bluetooth bootstrap bulma centos chrome codepen cordova coreos
creative cryengine debian dev deviantart digg dingding discord disqus dlna docker dolby douban dribbble dropbox
drupal edge ember emby eslint ethereum evernote facebook fedora finder firebase firefox flutter freebsd gatsby
gentoo git github gitlab gmail gnome goodreads google gradle graphql grease hololens hubspot hulu humble
instagram invision iobroker ipod jabber jira jquery jsfiddle kakao keynote kickstarter klingon kodi kubernetes
language laravel lastpass linkedin linux litecoin lumx manjaro mapbox markdown mastercard mastodon material
medium messenger mickey microsoft minecraft nativescript netease netflix nintendo nix nodejs npm npmjs nuxt oci
odnoklassniki onepassword openid opera origin pandora patreon paypal pinterest pixelfed playstation plex
pokeball pokemon polymer powershell qq qqchat quora raspberry react reactjs reddit redhat remixicon rollupjs
safari salesforce sass semantic sina skype slack snapchat sony soundcloud spotify stackpath stackshare steam
symfony tailwind taobao teamviewer telegram terraform toslink trello triforce tumblr twitch twitter ubisoft
ubuntu umbraco unity unreal unsplash vimeo visa vlc vuejs vuetify waze webpack webrtc wechat weibo whatsapp
wikipedia windows wordpress xamarin xbox xing xmpp yahoo youtube zcool zend zhihu zigbee
"""
BRANDS = frozenset(_MARKS.split())


def stem(word: str) -> str:
    """A word in small letters without the s of the plural; "glass" keeps its two."""
    word = word.lower()
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


@dataclass(frozen=True)
class Icons:
    """Grey pictures, 0 for ink to 255 for paper, with their names (words parted by spaces) and fonts.

    A name can stand several times, once for each font that has it.
    """

    pictures: UInt8[Tensor, "icons 1 size size"]
    names: tuple[str, ...]
    fonts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def select(self, indices: Int64[Tensor, " chosen"]) -> "Icons":
        """These icons only, in this order."""
        chosen = indices.tolist()
        names, fonts = (tuple(values[index] for index in chosen) for values in (self.names, self.fonts))
        return Icons(self.pictures[indices], names, fonts)

    def without(self, words: Sequence[str]) -> "Icons":
        """The icons whose name holds none of ``words``; case and the s of a plural make no difference.

        For what is held out elsewhere: after ``without(["dog", "tree"])`` no picture is called "dog side" or "trees".
        A word with a space in it counts as its words: ``without(["hot dog"])`` keeps neither "hot" nor "dog".
        """
        if isinstance(words, str):
            raise base.CourseError(f"without wants a list of words, not one text. Write: without({words.split()!r}).")
        out = {stem(piece) for word in words for piece in re.split(r"[\W_]+", word)}
        kept = [index for index, name in enumerate(self.names) if not out & set(map(stem, name.split()))]
        return self.select(torch.tensor(kept, dtype=torch.int64))


def _words(font: str, name: str, all_names: Set[str]) -> list[str]:
    """The words of an icon's name, without those that name its style; none if the icon is left out."""
    words = name.split("-")
    if font == "phosphor" and f"{name}-bold" not in all_names:
        return []  # one of the four styles that each icon also has
    if font == "remixicon" and words[-1] in ("line", "fill"):
        words = words[:-1]
    if font == "materialdesignicons6":
        words = [word for word in words if word not in ("outline", "variant")]
    if words and font != "fontawesome6-solid" and (words[0] in BRANDS or words[-1] == "logo"):
        return []
    if "awesome" in words or any(len(word) < 2 or not word.isalpha() for word in words):
        return []
    return words


def _files(font: str) -> tuple[Path, Path]:
    """The font and the list of its names."""
    paths = [path for path in source.source(CARD[0]).paths(source.verified(CARD[0])) if path.name.startswith(font)]
    (letters,) = (path for path in paths if path.suffix == ".ttf")
    (names,) = (path for path in paths if path.suffix == ".json")
    return letters, names


def _drawn(size: int) -> Iterator[tuple[np.ndarray, str, int]]:
    """Picture, name and font's number of every icon, font by font in the order of its list."""
    from PIL import Image, ImageDraw, ImageFont

    for number, font in enumerate(FONTS):
        letters, listed = _files(font)
        face = ImageFont.truetype(str(letters), round(EM * size), layout_engine=ImageFont.Layout.BASIC)
        codes = json.loads(listed.read_text(encoding="utf-8"))
        seen = set()
        for full, code in codes.items():
            name = " ".join(_words(font, full, codes.keys()))
            if not name or name in seen:
                continue
            drawn = face
            outside = max(map(abs, face.getbbox(chr(int(code, 16)), anchor="mm"))) / (size / 2)
            if outside > 1:  # some of Font Awesome's are wider than their em
                drawn = ImageFont.truetype(str(letters), int(EM * size / outside), layout_engine=ImageFont.Layout.BASIC)
            page = Image.new("L", (size, size), 255)
            ImageDraw.Draw(page).text((size / 2, size / 2), chr(int(code, 16)), fill=0, font=drawn, anchor="mm")
            pixels = np.asarray(page)
            if (pixels < 128).mean() >= INK:
                seen.add(name)
                yield pixels, name, number


def _draw(size: int) -> dict[str, Tensor]:
    pictures, names, fonts = zip(*_drawn(size), strict=True)
    return {
        "pictures": torch.from_numpy(np.stack(pictures))[:, None],
        "names": torch.frombuffer(bytearray("\n".join(names).encode()), dtype=torch.uint8),
        "fonts": torch.tensor(fonts),
    }


@functools.lru_cache(maxsize=4)
def load(size: int = 32) -> Icons:
    """All icons, ``size`` pixels wide and high, by font and within a font by name.

    The first call for a size draws for a second or two and keeps the pictures in the cache. Raises CourseError for a
    size that is not from 16 to 256.
    """
    if not 16 <= size <= 256:
        raise base.CourseError(f"icons of {size} pixels cannot be drawn; use a size from 16 to 256, such as size=32.")
    key = {"sources": source.hashes(*CARD), "size": size, "drawn_by": f"pillow {version('pillow')}", "version": 1}
    drawn = source.cached("icons", key, lambda: _draw(size))
    return Icons(
        pictures=drawn["pictures"],
        names=tuple(drawn["names"].numpy().tobytes().decode().split("\n")),
        fonts=tuple(FONTS[number] for number in drawn["fonts"].tolist()),
    )
