"""Results of `palette` and `phash`, as their arithmetic was written first: in plain Python.

An analyzer that gives another result to the same picture needs a higher version, and all uploads
are analyzed anew. So these stay as they are while the versions do.
"""

import random
from collections.abc import Iterator

import photographs
import PIL.Image

SIZES = ((160, 106), (33, 64), (64, 5), (1, 7))


def pictures() -> Iterator[tuple[str, bytes]]:
    """Pictures of many kinds and sizes, most of them as a PNG, each with a name."""
    for name in photographs.FILES:
        for width, height in SIZES:
            picture = photographs.picture(name, None).resize((width, height))
            yield f"{name} {width}x{height}", photographs.encode(picture, "png")
    for color in ("#000000", "#ffffff", "#1f4fd8", "#7b4a21"):
        yield f"flat {color}", photographs.encode(PIL.Image.new("RGB", (50, 40), color), "png")
    chance = random.Random(16)
    for mode in ("L", "LA", "RGB", "RGBA"):
        noise = PIL.Image.frombytes(mode, (40, 50), chance.randbytes(2000 * len(mode)))
        yield f"noise in {mode}", photographs.encode(noise, "png")
    gradient = PIL.Image.linear_gradient("L").convert("RGB")
    yield "gradient", photographs.encode(gradient, "png")
    yield "clear", photographs.encode(PIL.Image.new("RGBA", (9, 9)), "png")
    yield "JPEG", photographs.photograph("jpg", "coffee", None)
    yield "CMYK in a JPEG", photographs.cmyk("jpg")
    yield "16 bits of grey", photographs.grey_16_bit("png")
    yield "transparent WebP", photographs.transparent("webp")


# Of each of `pictures`: the hash, the placeholder, luminance, and colors with their weights.
RESULTS = {
    "astronaut 160x106": (
        "c2924c5532bddfc8",
        "3EgKFYhpaIVPh2aHVnh5dV8i9idk",
        0.4531,
        "cabfba 0.3162 cf5937 0.1566 030201 0.1432 826c71 0.1064 3c323f 0.0681 9c8d87 0.0647",
    ),
    "astronaut 33x64": (
        "c2924c5532bddfc8",
        "3EgKFAhp+HR4aJdXl5ZfIvYnZA==",
        0.4529,
        "c6bbb4 0.2751 df704c 0.1624 020101 0.1293 887274 0.1094 9d908d 0.0909 1c1217 0.0459",
    ),
    "astronaut 64x5": (
        "c2924c5d322eddae",
        "3EgKEYhpWJQ/iHaHXzL3N3Q=",
        0.4529,
        "bca79f 0.2344 3c3536 0.1969 c4593c 0.1875 756a64 0.1812 d7cfcd 0.0594 070508 0.0563",
    ),
    "astronaut 1x7": (
        "8080800000808000",
        "3Eg6ORIIiYZ4h4eICIaHUHg=",
        0.456,
        "a5948b 0.4286 985240 0.4286 6b3c30 0.1429",
    ),
    "cat 160x106": (
        "b15fe6465121175e",
        "XEkGFYL2V2ix5qmreEWIhQx31HBm",
        0.4685,
        "845e43 0.5093 aa8265 0.3601 633b1f 0.051 bfa9a5 0.0506 382416 0.029",
    ),
    "cat 33x64": (
        "b15fe6465121175e",
        "XEkGFAL2F2uuioRYaIcMd9RwZg==",
        0.4685,
        "835e44 0.4574 a57f68 0.4285 bfa9a5 0.0511 60381e 0.0431",
    ),
    "cat 64x5": (
        "a15fe6664181bf91",
        "XEkGEYL1aGej1nl4DHfXYHY=",
        0.4683,
        "8d6444 0.5281 9a8276 0.2437 6b4d38 0.1281 b69f9a 0.1",
    ),
    "cat 1x7": ("8000800000000080", "XEk6WRIIh4h4h4d3CIeHcHg=", 0.465, "9d7c69 1.0"),
    "coffee 160x106": (
        "bb8320376c0f3637",
        "GIoKDYSlqIdPUXd3eEeHh9J/YIkI",
        0.4064,
        "c3713d 0.3214 b13012 0.3036 1d0905 0.1406 d49f73 0.1339 501308 0.0722 f7e9da 0.0283",
    ),
    "coffee 33x64": (
        "bb8320376c0f3637",
        "GIoKDASl+BR1h3R4eHfSf2CJCA==",
        0.4065,
        "b02e10 0.3707 c68050 0.3295 210a05 0.1108 4b0a04 0.0639 6d2814 0.0473 e2ba96 0.0431",
    ),
    "coffee 64x5": (
        "bb820023ccfc33fe",
        "GJoKCYKlqYdfUnd4449Hj3s=",
        0.4077,
        "aa5328 0.3438 c17444 0.2437 621e0e 0.1812 d19a71 0.1344 280804 0.0563 8d230e 0.0406",
    ),
    "coffee 1x7": (
        "8080000080800080",
        "GIoyiSQIiXaIh4h3CIiHgHg=",
        0.4039,
        "c6703e 0.5714 82331b 0.4286",
    ),
    "rocket 160x106": (
        "c82713ec1be71267",
        "D9cFHYQsd2ZweZd1h4iIdnZwbQfX",
        0.2196,
        "1e395d 0.4993 042140 0.2645 37577d 0.1775 765c4a 0.0272",
    ),
    "rocket 33x64": (
        "c82713ec1be71267",
        "D9cFHAQsB5dXd4hoh3h2cG0H1w==",
        0.2199,
        "1e395c 0.4062 04203e 0.3546 37567c 0.1785 745b4a 0.0237 ae8355 0.0232",
    ),
    "rocket 64x5": (
        "c83713ec199be493",
        "z9YFEYIed1ZwiXeHhXBYB4c=",
        0.2211,
        "1b3353 0.5031 695a56 0.1625 274b75 0.1594 061427 0.1469 af936e 0.0281",
    ),
    "rocket 1x7": (
        "8000008000808000",
        "ENchQQgIhnmIiId494V5T6g=",
        0.2286,
        "5b4a42 0.4286 274060 0.4286 07203e 0.1429",
    ),
    "galaxies 160x106": (
        "84cc4b96ba4d333e",
        "BfgBBYAHZWu5FZi1UqljaJadYIAb",
        0.0758,
        "0e1110 0.9152 2a2527 0.0688",
    ),
    "galaxies 33x64": (
        "84cc4b96ba4d333e",
        "BfgBBAAHllpRKzqWRj2mv3CAKg==",
        0.0759,
        "0e100f 0.9025 262325 0.0739",
    ),
    "galaxies 64x5": (
        "84cc4f96ba792563",
        "BfgBAYAGZWy5FXiIgKtYYIs=",
        0.0761,
        "0f1110 0.9625 292625 0.0375",
    ),
    "galaxies 1x7": ("8080808080000000", "BfgJAQAIiHeIiIh3WI90j4g=", 0.0773, "121313 1.0"),
    "retina 160x106": (
        "c0cc1f977ac02d4f",
        "FroKJYoZR2eId4hghYh3hQh3cHAH",
        0.3548,
        "ce513b 0.7281 020001 0.2042 90392c 0.0253",
    ),
    "retina 33x64": (
        "c0cd1f977ac02d0f",
        "FroKJAoZh3gHVnhXiGgYd3BwBw==",
        0.3549,
        "ca4f39 0.6795 030001 0.2036 ed7354 0.054 501f18 0.0213",
    ),
    "retina 64x5": (
        "c08d1f977a68e568",
        "GMoKGYoKN2eIeHiICHd3cHc=",
        0.3614,
        "b64836 0.3531 ea694e 0.3375 883528 0.1062 030101 0.1 471c15 0.0437 230d0b 0.0437",
    ),
    "retina 1x7": (
        "8080008000800000",
        "F8oyiTIIiGeYiId4CIeGcGg=",
        0.3754,
        "d7583c 0.5714 67291f 0.2857 af4533 0.1429",
    ),
    "motorcycle 160x106": (
        "c507c66b9370aa73",
        "mzgKDYI7NmhDVpWPZmd6anKvRecJ",
        0.426,
        "7d706c 0.266 643120 0.2336 38231c 0.1611 c5b3a7 0.1603 a1948f 0.1127 dad0d4 0.0357",
    ),
    "motorcycle 33x64": (
        "c507c66b9370aa73",
        "mzgKDAI7NmT1aKanRolyv0XnCg==",
        0.4261,
        "664434 0.3134 bbaea8 0.2344 796a63 0.2188 3a2923 0.1174 d8ced2 0.0369 b18368 0.036",
    ),
    "motorcycle 64x5": (
        "c507c64b93b46db4",
        "mjgGCYIdBkkiRnSHcK8n9no=",
        0.4242,
        "7a665d 0.3438 6a3c2f 0.325 ab9e97 0.2437 2c1d1b 0.0437 d2c8cd 0.0281",
    ),
    "motorcycle 1x7": (
        "8000800080008080",
        "mzg2MQ4Ih4h4h4iHCImHkGg=",
        0.4336,
        "8e6f61 0.5714 7d4943 0.2857 ac9d95 0.1429",
    ),
    "camera 160x106": (
        "bff1c1c0434e8cbc",
        "IAgOBYCAiZidmnetdodohgAAAAAA",
        0.5061,
        "a1a1a1 0.3512 d1d1d1 0.2857 1c1c1c 0.2061 818181 0.0592 070707 0.0424 323232 0.0312",
    ),
    "camera 33x64": (
        "bff1c1c0434e8cbc",
        "IAgOBACA2anZaohmeIgAAAAAAA==",
        0.5061,
        "979797 0.3712 d1d1d1 0.2855 1d1d1d 0.1993 686868 0.054 070707 0.0421 333333 0.0331",
    ),
    "camera 64x5": (
        "bff1c1c0233e9c38",
        "HwgOAYCAiYicmneIAAAAAAA=",
        0.5058,
        "919191 0.4062 d1d1d1 0.2562 101010 0.1469 3a3a3a 0.0969 535353 0.0594 727272 0.0344",
    ),
    "camera 1x7": (
        "8080808000008000",
        "IAhCAQAIiZZoiIeHAAAAAAA=",
        0.5053,
        "777777 0.5714 c6c6c6 0.1429 a9a9a9 0.1429 4c4c4c 0.1429",
    ),
    "logo 160x106": (
        "bec9e036849cc33b",
        "bRoKJYj2uJiHd3iee3aXegd1QgV4",
        0.7689,
        "96c84a 0.3263 ffa660 0.3121 ffffff 0.2719 fdcea7 0.0525 bedc94 0.0286",
    ),
    "logo 33x64": (
        "bec9e036849cc33b",
        "bRoKJAj2eHjnuXepl6cHdTIFeA==",
        0.7692,
        "97c94b 0.3485 ffa65f 0.3082 fffffe 0.2798 fdcda5 0.0545",
    ),
    "logo 64x5": (
        "bec9e034945b4bc9",
        "rBoKIYj1yKiId3h4B3UnBHg=",
        0.7634,
        "fda761 0.3656 93c247 0.3344 fefefc 0.1781 cce3a4 0.1219",
    ),
    "logo 1x7": (
        "8080800080808000",
        "qypWqQoIiId4h4iICIeHAXc=",
        0.7524,
        "d2bd6b 0.5714 ffc699 0.2857 cde7ab 0.1429",
    ),
    "flat #000000": ("0000000000000000", "AAgCBoAAAAAAAAAAAAAAAAAAAAAAAAA=", 0.0, "000000 1.0"),
    "flat #ffffff": ("8000000000000000", "PwgCBoBme5iMiIiEiLiIWIiPAAAAAAA=", 1.0, "ffffff 1.0"),
    "flat #1f4fd8": ("8000000000000000", "G6MBBoBLiYiKiIiEiLiIWIiPmIA8jPg=", 0.3137, "1f4fd8 1.0"),
    "flat #7b4a21": ("8000000000000000", "E2oCBoCHiaiMiIiCiLiIWIiPX4v0wyg=", 0.3294, "7b4a21 1.0"),
    "noise in L": (
        "eb8464b26d97d823",
        "HwgCBgC5w6VneHu6dTvK4KjlAAAAAAA=",
        0.4857,
        "6e6e6e 0.1915 333333 0.189 d4d4d4 0.186 b3b3b3 0.1285 060606 0.116 f6f6f6 0.0675",
    ),
    "noise in LA": (
        "92e755ec14b14579",
        "HwiCBAAHCI1odGiJCAAAAADAR1FolnlXDw==",
        0.7536,
        "c8c8c8 0.1955 767676 0.1862 131313 0.1728 f8f8f8 0.1276 303030 0.1265 939393 0.1245",
    ),
    "noise in RGB": (
        "9825cc2e969dc957",
        "4AcCDgKFrDGVKIk5d2RZX7OUGWBHFgk=",
        0.4969,
        "284e42 0.081 34cb3c 0.07 95b7e1 0.0685 2d74c3 0.067 2ad4c6 0.0645 e05bc3 0.064",
    ),
    "noise in RGBA": (
        "a9af0599604b87db",
        "4PeBBAAIQ9hWBZYtAqJZM/7A0FFKKrJiBg==",
        0.7514,
        "69c485 0.1931 da8f83 0.0739 8a21a9 0.0719 2e2e9e 0.0709 d3c72c 0.07 aa86db 0.067",
    ),
    "gradient": (
        "8000800080008000",
        "IAgaBwB4iIiAiIiHiHiIeIiHBwAAAAAA",
        0.502,
        "141414 0.1562 f6f6f6 0.1406 b2b2b2 0.1406 727272 0.1406 d2d2d2 0.125 909090 0.1094",
    ),
    "clear": ("8000000000000000", "AAiCBQAAAAAAAAAAAAAAAAAAAAAAAAAAAA==", 1.0, ""),
    "JPEG": (
        "bb8320376c0f3637",
        "GIoKDYSlqIdPUXd3eEeHh9N/YIkI",
        0.4065,
        "af2f11 0.3448 bf7343 0.2831 1e0a06 0.1424 d6a174 0.1254 6d2110 0.0749 f5e8d9 0.0294",
    ),
    "CMYK in a JPEG": (
        "bb8320376c0f3637",
        "GIoKDYSlqIdPUXd3eEeHh9J/YIkI",
        0.4064,
        "af2e11 0.3339 c07242 0.2961 1e0a06 0.1406 d7a275 0.1254 511409 0.0752 f6eadb 0.0287",
    ),
    "16 bits of grey": (
        "bff1c1c0434e8cbc",
        "IAgOBwCAiZidmnetdodoZ3iHCAAAAAAA",
        0.5061,
        "989898 0.3706 d0d0d0 0.3047 1c1c1c 0.2061 070707 0.043 323232 0.0317 686868 0.0234",
    ),
    "transparent WebP": (
        "b13fcc0e20113f9f",
        "XEmCC4BY6ltj688EdkIgNY91eIiIiIg=",
        0.7323,
        "a67f66 0.4851 835b3f 0.4323 58351a 0.0372 c4afae 0.026",
    ),
}
