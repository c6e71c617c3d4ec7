"""What searches must find and must not find, in many scripts."""

# ruff: noqa: RUF001  Letters of all scripts are meant here.

import io
from collections.abc import Callable, Iterator
from urllib.parse import urlencode

import pytest
from editing import edited, get
from running import Servers
from workshop import Workshop

from clustr.testing import sample_image

LANGUAGES = "en,de,fr,tr,el,ru,ar,hi"

# The name of the file, the caption, the tags.
Upload = tuple[str, str, tuple[str, ...]]
LIBRARY: dict[str, Upload] = {
    # English
    "dogs": ("IMG_2024-07-Beach.jpg", "two dogs on a beach", ("dog", "golden retriever")),
    "vacation": ("DSC_0017.JPG", "our vacation in the mountains", ("vacation", "hiking")),
    "rocket": ("rocket_0954.jpg", "a launch at night, 10:45 PM", ("space",)),
    "vacuum": ("scan-3.png", "a vacuum cleaner in a hall", ("household",)),
    "cat": ("whiteCat2.jpeg", "a cat sleeping on a red sofa", ("cat", "red")),
    "cushion": ("IMG20240715_201503.jpg", "a red cushion, no cat, on a blue sofa", ("sofa",)),
    "women": ("portrait.webp", "the women's race: runner no. 1,024", ("sports", "t-shirt")),
    "retriever": ("golden gate.jpg", "a retriever swims below a bridge", ("retriever",)),
    # German, French, Turkish, and others that are written in Latin letters
    "street": ("Strassenfest.jpg", "eine Straße in München", ("Straße", "Häuser")),
    "beer": ("biergarten.jpg", "große Gläser voller Bier", ("Getränke",)),
    "summer": ("été.jpg", "un café glacé à l'ombre des chênes", ("déjeuner", "cœur")),
    "tea": ("çay.jpg", "İstanbul'da kırmızı bir ışık", ("ışık", "çay")),
    "lodz": ("wroclaw.jpg", "nocny Łódź", ("łódka",)),
    "oslo": ("fjord.jpg", "smørrebrød på Ærø", ("brød",)),
    "saigon": ("pho.jpg", "một bát phở ở Sài Gòn", ("phở",)),
    # Greek
    "sea-el": ("θάλασσα.jpg", "μια βάρκα στη θάλασσα", ("βάρκα",)),
    "road-el": ("20.jpg", "ΕΝΑΣ ΔΡΟΜΟΣ ΣΤΗΝ ΑΘΗΝΑ", ("δρόμος",)),
    # Cyrillic
    "sea-ru": ("22.jpg", "дом у моря", ("лето",)),
    "tree-ru": ("23.jpg", "зелёная ёлка и мой кот", ("ёлка",)),
    "mine-ru": ("24.jpg", "мои собаки в городах", ("собака",)),
    "uk": ("25.jpg", "їжак їсть яблуко", ("їжак",)),
    # Arabic
    "sea-ar": ("26.jpg", "صورة البحر عند الغروب", ("البحر",)),
    "cat-ar": ("27.jpg", "قطة تنام على الأريكة", ("قطة",)),
    # Hebrew
    "sea-he": ("28.jpg", "חוף הים בשקיעה", ("ים",)),
    "dog-he": ("29.jpg", "שני כלבים בפארק", ("כלב",)),
    # Devanagari
    "dog-hi": ("30.jpg", "समुद्र तट पर दो कुत्ते", ("कुत्ता",)),
    "flower-hi": ("31.jpg", "लाल फूल और हरी पत्ती", ("फूल",)),
    # Thai
    "sea-th": ("32.jpg", "ทะเลสวยในตอนเย็น", ("ทะเล",)),
    "dog-th": ("33.jpg", "หมาสองตัวบนชายหาด", ("หมา",)),
    # Chinese, Japanese, Korean
    "sea-ja": ("34.jpg", "日本語の海の写真", ("海",)),
    "bus-ja": ("35.jpg", "赤いバスと東京タワー", ("バス",)),
    "lotus-ja": ("36.jpg", "池のハスの花", ("ハス",)),
    "wall-zh": ("北京2024.jpg", "长城在北京的北边", ("长城",)),
    "cat-zh": ("38.jpg", "一只猫在沙发上睡觉", ("猫",)),
    "beach-ko": ("39.jpg", "해변에서 노는 강아지 두 마리", ("해변",)),
    "night-ko": ("40.jpg", "서울의 밤하늘", ("서울",)),
}

# What is looked for, which uploads must be found, and which must not; `*` stands for all others.
Row = tuple[str, str, str]
WORDS: list[Row] = [
    # other forms of a word, and words that only look alike
    ("vacations", "vacation", "*"),
    ("dog", "dogs", "*"),
    ("dogs", "dogs", "*"),
    ("DOG", "dogs", "*"),
    ("sleeps", "cat", "*"),
    ("swimming", "retriever", "*"),
    ("woman's", "", "*"),
    ("women", "women", "*"),
    ("s", "", "*"),
    ("do", "", "*"),
    ("vacuums", "vacuum", "*"),
    # all words, in any field
    ("dogs beach", "dogs", "*"),
    ("beach golden", "dogs", "*"),
    ("dog mountains", "", "*"),
    ("red sofa", "cat cushion", "*"),
    ("golden retriever", "dogs retriever", "*"),
    # phrases
    ('"red sofa"', "cat", "*"),
    ('"golden retriever"', "dogs", "*"),
    ('"dogs on a beach"', "dogs", "*"),
    ('"beach on dogs"', "", "*"),
    ('"red no cat"', "", "*"),
    ('"no cat"', "cushion", "*"),
    ('"dogs golden"', "", "*"),
    # without a word or a phrase, also alone
    ("sofa -cushion", "cat", "*"),
    ('sofa -"red sofa"', "cushion", "*"),
    ("-sofa", "dogs vacation sea-ja sea-ru", "cat cushion"),
    ("-cat -dog", "vacation rocket street", "cat cushion dogs"),
    ("sofa -sofas", "", "*"),
    # in one field
    ("tag:red", "cat", "*"),
    ("caption:red", "cat cushion", "*"),
    ("name:red", "", "*"),
    ("name:beach", "dogs", "*"),
    ("caption:golden", "", "*"),
    ("tag:dogs", "dogs", "*"),
    ('tag:"golden retriever"', "dogs", "*"),
    ("tag:retriever", "dogs retriever", "*"),
    ("sofa -tag:sofa", "cat", "*"),
    ("name:golden", "retriever", "*"),
    # names of files, and numbers
    ("rocket", "rocket", "*"),
    ("0954", "rocket", "*"),
    ("rocket_0954.jpg", "rocket", "*"),
    ("jpg", "", "*"),
    (".jpg", "", "*"),
    ("beach", "dogs", "*"),
    ("IMG_2024-07-Beach", "dogs", "*"),
    ("IMG_2024-07-Beach.jpg", "dogs", "*"),
    ("2024", "dogs wall-zh", "cat rocket"),
    ("2024-07", "dogs", "*"),
    ("IMG20240715_201503", "cushion", "*"),
    ("20240715", "cushion", "*"),
    ("white cat", "cat", "*"),
    ("whitecat2", "cat", "*"),
    ("dsc 0017", "vacation", "*"),
    ("1,024", "women", "*"),
    ("10:45", "rocket", "*"),
    ("t-shirt", "women", "*"),
    # German
    ("strasse", "street", "*"),
    ("Straße", "street", "*"),
    ("STRASSE", "street", "*"),
    ("munchen", "street", "*"),
    ("München", "street", "*"),
    ("grosse Glaser", "beer", "*"),
    ("große gläser", "beer", "*"),
    # French
    ("cafe glace", "summer", "*"),
    ("CAFÉ", "summer", "*"),
    ("ombre", "summer", "*"),
    ("l'ombre", "summer", "*"),
    ("été", "summer", "*"),
    ("ete", "summer", "*"),
    ("coeur", "summer", "*"),
    # Turkish, Polish, Danish, Vietnamese
    ("istanbul", "tea", "*"),
    ("İSTANBUL", "tea", "*"),
    ("isik", "tea", "*"),
    ("ışık", "tea", "*"),
    ("cay", "tea", "*"),
    ("lodz", "lodz", "*"),
    ("Łódź", "lodz", "*"),
    ("smorrebrod", "oslo", "*"),
    ("aero", "oslo", "*"),
    ("pho", "saigon", "*"),
    ("Sài Gòn", "saigon", "*"),
    # Greek
    ("θαλασσα", "sea-el", "*"),
    ("ΘΆΛΑΣΣΑ", "sea-el", "*"),
    ("δρόμος", "road-el", "*"),
    ("δρομοσ", "road-el", "*"),
    ("αθήνα", "road-el", "*"),
    # Cyrillic
    ("дом", "sea-ru", "*"),
    ("елка", "tree-ru", "*"),
    ("ЁЛКА", "tree-ru", "*"),
    ("мой", "tree-ru", "*"),
    ("мои", "mine-ru", "*"),
    ("їжак", "uk", "*"),
    ("іжак", "", "*"),
    # Arabic, Hebrew
    ("البحر", "sea-ar", "*"),
    ("صورة الغروب", "sea-ar", "*"),
    ("قطة", "cat-ar", "*"),
    ("חוף", "sea-he", "*"),
    ("ים", "sea-he", "*"),
    ("כלבים", "dog-he", "*"),
    ("כלבים -פארק", "dog-he", "*"),
    ("כלבים -בפארק", "", "*"),
    # Devanagari
    ("समुद्र", "dog-hi", "*"),
    ("फूल", "flower-hi", "*"),
    ("फल", "", "*"),
    ("कत", "", "*"),
    ("हर", "", "*"),
    # Thai
    ("ทะเล", "sea-th", "*"),
    ("สวย", "sea-th", "*"),
    ("ชายหาด", "dog-th", "*"),
    ("หมา", "dog-th", "*"),
    ("ทเล", "", "*"),
    # Chinese, Japanese, Korean
    ("海", "sea-ja", "*"),
    ("日本", "sea-ja", "*"),
    ("本日", "", "*"),
    ("写真の海", "", "*"),
    ("海の写真", "sea-ja", "*"),
    ("写真 海", "sea-ja", "*"),
    ("バス", "bus-ja", "*"),
    ("ﾊﾞｽ", "bus-ja", "*"),
    ("ハス", "lotus-ja", "*"),
    ("タワー", "bus-ja", "*"),
    ("长城", "wall-zh", "*"),
    ("北京", "wall-zh", "*"),
    ("北京2024", "wall-zh", "*"),
    ("猫 沙发", "cat-zh", "*"),
    ("tag:猫", "cat-zh", "*"),
    ("해변", "beach-ko", "*"),
    ("강아지", "beach-ko", "*"),
    ("하늘", "night-ko", "*"),
    ("변해", "", "*"),
]
# While somebody types, the last word may be the beginning of a word.
BEGINNINGS: list[Row] = [
    ("vac", "vacation vacuum", "*"),
    ("vaca", "vacation", "*"),
    ("v", "", "*"),
    ("vac ", "", "*"),
    ('"vac"', "", "*"),
    ("vac hall", "", "*"),
    ("hall vac", "vacuum", "*"),
    ("dog bea", "dogs", "*"),
    ("sofa -cus", "cat cushion", "*"),
    ("tag:gol", "dogs", "*"),
    ("name:gol", "retriever", "*"),
    ("roc", "rocket", "*"),
    ("stras", "street", "*"),
    ("straß", "street", "*"),
    ("dejeu", "summer", "*"),
    ("201", "cushion", "dogs"),
    ("2024-0", "dogs", "*"),
    ("θαλ", "sea-el", "*"),
    ("соб", "mine-ru", "*"),
    ("الغ", "sea-ar", "*"),
    ("כלב", "dog-he", "*"),
    ("समु", "dog-hi", "*"),
    ("東京", "bus-ja", "*"),
]
# With languages beside English.
STEMS: list[Row] = [
    ("море", "sea-ru", "*"),
    ("города", "mine-ru", "*"),
    ("собаки", "mine-ru", "*"),
    ("кота", "tree-ru", "*"),
    ("vacations", "vacation", "*"),
    ("dog", "dogs", "*"),
    ("straßen", "street", "*"),
    ("haus", "street", "*"),
    ("getränk", "beer", "*"),
    ("chêne", "summer", "*"),
    ("chene", "summer", "*"),
    ("glacée", "summer", "*"),
    ("ışıklar", "tea", "*"),
    ("δρόμοι", "road-el", "*"),
    ("βάρκες", "sea-el", "*"),
    ("بحر", "sea-ar", "*"),
    ("أريكة", "cat-ar", "*"),
    ("कुत्तों", "dog-hi", "*"),
    ("फूलों", "flower-hi", "*"),
    ("समद", "", "*"),
    ("ハス", "lotus-ja", "*"),
]

Found = Callable[[str, bool], set[str]]


@pytest.fixture(scope="module")
def found(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    """The uploads that a search finds, by the default languages."""
    with Workshop(tmp_path_factory.mktemp("english"), servers) as workshop:
        yield library(workshop)


@pytest.fixture(scope="module")
def found_in_languages(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Found]:
    """The uploads that a search finds, by many languages."""
    folder = tmp_path_factory.mktemp("languages")
    with Workshop(folder, servers, SEARCH_LANGUAGES=LANGUAGES) as workshop:
        yield library(workshop)


def library(workshop: Workshop) -> Found:
    workshop.web.database.make_indexes()
    client, image, keys = workshop.app.test_client(), sample_image("jpeg").read_bytes(), {}
    for key, (name, caption, tags) in LIBRARY.items():
        form = {"files": (io.BytesIO(image), name)}
        uploaded = client.post("/api/upload", data=form).json["data"][0]["id"]
        edited(workshop, uploaded, caption=caption, tags={"set": [*tags]})
        keys[uploaded] = key

    def found(q: str, prefix: bool = False) -> set[str]:
        words = {"q": q, "limit": "100"} | ({} if prefix else {"prefix": "off"})
        answer = get(workshop, f"/api/uploads?{urlencode(words)}")
        assert answer.status_code == 200, answer.text
        return {keys[upload["id"]] for upload in answer.json["data"]}

    return found


def check(row: Row, found: set[str]) -> None:
    must, must_not = {*row[1].split()}, {*row[2].split()}
    assert found >= must
    assert not found & (LIBRARY.keys() - must if must_not == {"*"} else must_not)


def test_the_table_is_of_this_library():
    for row in WORDS + BEGINNINGS + STEMS:
        assert {*row[1].split(), *row[2].split()} <= {*LIBRARY, "*"}


@pytest.mark.parametrize("row", WORDS, ids=lambda row: row[0])
def test_words_find(found, row):
    check(row, found(row[0], False))


@pytest.mark.parametrize("row", BEGINNINGS, ids=lambda row: row[0])
def test_beginnings_of_words_find(found, row):
    check(row, found(row[0], True))


@pytest.mark.parametrize("row", STEMS, ids=lambda row: row[0])
def test_forms_of_words_in_other_languages_find(found_in_languages, row):
    check(row, found_in_languages(row[0], False))
