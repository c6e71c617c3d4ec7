"""Outages: whatever is away, frozen or killed, nothing is lost and all heals without help."""

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import photographs
import pytest
import requests
from blip_stand_in import BlipStandIn
from pymongo import WriteConcern
from redis import Redis
from running import Up, wait_until
from workshop import Outage, Workshop, analyzer, plugin

from clustr import components
from clustr.database.uploads import ANSWERED_SECONDS

HEALS_WITHIN_SECONDS = 60
POISON = photographs.photograph("jpg", "astronaut")

# Takes a moment for each image, so that there is something under way to be disturbed.
SLOW = analyzer("slow", "time.sleep(0.1); return {}")

# A health check that hangs for as long as there is a file.
MOODY = plugin(
    "moody",
    "def analyze(self, image, context):",
    "    return {}",
    "def health(self, context):",
    "    while Path('moody').exists(): time.sleep(0.05)",
    "    return Health('mood', True, detail=7)",
)

# One that takes the names of what Clustr itself needs.
IMPOSTOR = plugin(
    "database",
    "def analyze(self, image, context):",
    "    return {}",
    "def health(self, context):",
    "    return Health('storage', True, 'all is well')",
)


class Captioner(BlipStandIn):
    """A captioner that fails on one picture while all else goes well."""

    @property
    def answer_status(self) -> int:
        """The status with which the picture that came last is answered."""
        return 500 if self.requests[-1].content == POISON else 200

    @answer_status.setter
    def answer_status(self, status: int) -> None:
        """It follows from the picture."""


class Service:
    """A service as its clients see it, and the servers that it needs."""

    def __init__(self, up: Up, servers: Outage, captioner: Captioner, folder: Path):
        self.up, self.servers, self.captioner, self.folder = up, servers, captioner, folder
        self._contents = (photographs.photograph(width=40 + n) for n in itertools.cycle(range(200)))

    def post(self, *contents: bytes) -> requests.Response:
        files = [("files", ("photograph.jpg", content)) for content in contents]
        return requests.post(f"{self.up.url}/api/upload", files=files, timeout=60)

    def upload(self, *contents: bytes) -> list[str]:
        answer = self.post(*contents)
        assert answer.status_code == 201, answer.text
        return [one["id"] for one in answer.json()["data"]]

    def upload_some(self, count: int) -> list[str]:
        return self.upload(*itertools.islice(self._contents, count))

    def get(self, path: str) -> requests.Response:
        return requests.get(f"{self.up.url}{path}", timeout=60)

    def health(self) -> Any:
        answer = self.get("/api/health")
        assert answer.status_code == 200
        return answer.json()

    def services(self) -> Any:
        return self.health()["services"]

    def uploads(self, ids: list[str]) -> list[dict[str, Any]]:
        """Those of these ids, which are among the newest."""
        page = self.get("/api/uploads?limit=100&fields=id,status,analyses").json()["data"]
        found = {upload["id"]: upload for upload in page}
        return [found[upload_id] for upload_id in ids]

    def statuses(self, ids: list[str]) -> list[str]:
        return [upload["status"] for upload in self.uploads(ids)]

    def states(self, ids: list[str], name: str) -> list[str]:
        return [upload["analyses"][name]["status"] for upload in self.uploads(ids)]

    def wait_until_processed(self, ids: list[str], seconds: float) -> None:
        def all_processed() -> bool:
            return set(self.statuses(ids)) == {"processed"}

        wait_until(all_processed, seconds, f"the end of {len(ids)} uploads")

    def files(self) -> set[Path]:
        """The originals, and what is left of those that were refused."""
        return {path for path in (self.up.data / "uploads").rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def outage(tmp_path_factory) -> Iterator[Outage]:
    servers = Outage(tmp_path_factory.mktemp("outage"))
    try:
        servers.start()
        yield servers
    finally:
        servers.thaw("mongod")
        servers.thaw("redis-server")
        servers.end()


@pytest.fixture(scope="module")
def whole(tmp_path_factory, outage: Outage) -> Iterator[Service]:
    """A `clustr up` on servers that can be disturbed, with a captioner."""
    folder = tmp_path_factory.mktemp("service")
    (folder / "plugins").mkdir()
    for name, source in {"slow": SLOW, "moody": MOODY, "database": IMPOSTOR}.items():
        (folder / "plugins" / f"{name}.py").write_text(source)
    with Captioner() as captioner:
        settings = {
            "MONGODB_URL": outage.mongodb_url,
            "REDIS_URL": outage.redis_url,
            "BLIP_SERVICE_URL": captioner.url,
            "PLUGINS_DISABLED": "exif,palette,phash",
            "LOG_FORMAT": "json",
        }
        up = Up(folder, settings, ("--workers", "2"))
        try:
            yield Service(up.wait_until_started(), outage, captioner, folder)
        finally:
            up.end()


@pytest.fixture
def service(whole: Service) -> Iterator[Service]:
    """The service, with everything there and well before each test and after it."""
    wait_until(lambda: whole.health()["status"] == "healthy", 60, "good health")
    yield whole
    for name in ("mongod", "redis-server"):
        whole.servers.thaw(name)
    wait_until(lambda: whole.health()["status"] == "healthy", 60, "good health")


# The captioner


def test_D4_captioner_away_defers_and_all_is_captioned_when_it_is_back(service):
    service.captioner.stop()
    began = time.time()
    ids = service.upload_some(23)

    def deferred() -> bool:
        return service.services()["queue"]["deferred"].get("blip", {}).get("count") == len(ids)

    wait_until(deferred, 60, "all captions to be deferred")
    health = service.health()
    assert health["status"] == "degraded"
    assert health["services"]["captioner"]["status"] == "unhealthy"
    assert health["services"]["queue"]["status"] == "healthy"
    since = health["services"]["queue"]["deferred"]["blip"]["since"]
    assert since.endswith("Z")
    began_at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(began - 1))
    assert began_at <= since <= time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    wait_until(lambda: set(service.states(ids, "slow")) == {"succeeded"}, 60, "the others")
    assert set(service.statuses(ids)) == {"pending"}
    assert set(service.states(ids, "blip")) <= {"deferred", "running"}  # One may be tried.
    service.captioner.start()
    service.wait_until_processed(ids, HEALS_WITHIN_SECONDS)
    assert service.get(f"/api/uploads/{ids[0]}").json()["caption"]
    services = service.services()
    assert services["queue"]["deferred"] == {}
    assert services["captioner"]["status"] == "healthy"


# Redis


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_D2_redis_away_still_takes_uploads_and_ends_them_later(service, how):
    under_way = service.upload_some(20)
    wait_until(lambda: "succeeded" in service.states(under_way, "slow"), 60, "a start")
    disturb(service.servers, "redis-server", how)
    ids = [key for _ in range(3) for key in service.upload_some(1)]
    health = service.health()
    assert health["status"] == "degraded"
    assert health["services"]["queue"]["status"] == "unhealthy"
    assert service.get("/api/health/ready").status_code == 200
    restore(service.servers, "redis-server", how)
    service.wait_until_processed(under_way + ids, 60)


def disturb(servers: Outage, name: str, how: str) -> None:
    (servers.kill if how == "killed" else servers.freeze)(name)


def restore(servers: Outage, name: str, how: str) -> None:
    (servers.start_again if how == "killed" else servers.thaw)(name)


# MongoDB


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_D1_mongodb_away_is_said_within_three_seconds_and_heals(service, how):
    before = service.upload_some(10)
    files = service.files()
    time.sleep(ANSWERED_SECONDS)  # An upload at once after another trusts MongoDB to be there.
    disturb(service.servers, "mongod", how)
    calls: dict[str, Callable[[], requests.Response]] = {
        "upload": lambda: service.post(photographs.photograph()),
        "list": lambda: service.get("/api/uploads"),
        "one": lambda: service.get(f"/api/uploads/{before[0]}"),
        "root": lambda: service.get("/"),
        "health": lambda: service.get("/api/health"),
        "database": lambda: service.get("/api/health/database"),
        "page": lambda: service.get("/api/health/page"),
        "live": lambda: service.get("/api/health/live"),
        "ready": lambda: service.get("/api/health/ready"),
    }

    def answers_in_time() -> dict[str, requests.Response] | None:
        """All answers, unless the machine had other things to do and one has taken too long."""
        with ThreadPoolExecutor(len(calls)) as threads:
            called = {name: threads.submit(call) for name, call in calls.items()}
            answers = {name: answer.result() for name, answer in called.items()}
        is_alive_at_once = seconds_of(answers["live"]) < 0.5
        return answers if is_alive_at_once and max(map(seconds_of, answers.values())) < 3 else None

    answers = wait_until(answers_in_time, 60, "answers within three seconds")
    for name in ("upload", "list", "one"):
        check_unavailable(answers[name])
    check_health_without_mongodb(answers)
    assert service.files() == files
    restore(service.servers, "mongod", how)
    wait_until(lambda: service.post(photographs.photograph()).status_code == 201, 60, "an upload")
    wait_until(lambda: service.get("/api/health/ready").ok, 60, "all processes to be ready")
    service.wait_until_processed(before, 90)


def seconds_of(answer: requests.Response) -> float:
    return answer.elapsed.total_seconds()


def test_D1_an_outage_under_an_analysis_is_no_crash_of_it(tmp_path, outage, monkeypatch):
    mongod = outage.process("mongod")
    monkeypatch.setattr(components, "WORKER_TIMEOUT_SECONDS", 3)  # In this process it is put back.
    impatient = "import clustr.components\nclustr.components.WORKER_TIMEOUT_SECONDS = 3\n"
    go = tmp_path / "go"
    ends_it = f"""
while not Path({str(go)!r}).exists():
    time.sleep(0.01)
os.kill({mongod.pid}, signal.SIGKILL)
return {{}}
"""
    with Workshop(tmp_path, outage) as workshop:
        workshop.write("once", impatient + analyzer("once", ends_it, max_attempts=1))
        [upload_id] = workshop.upload()
        horse = workshop.horse("once", "run")
        workshop.wait_for_state(upload_id, "once", "running")
        # A write that is in the journal, with all that was written before, so the claim lasts.
        journaled = workshop.collection.database["journaled"]
        journaled.with_options(write_concern=WriteConcern(j=True)).insert_one({})
        go.touch()
        wait_until(lambda: "release_waits" in horse.output(), 60, "a release that waits")
        mongod.wait()
        outage.start_again("mongod")
        assert horse.process.wait(60) == 0
        found = workshop.analysis(upload_id, "once")
        assert (found.state, found.attempts, found.error) == ("queued", 0, None)


STORAGE = {"status", "response_time", "free_bytes", "free_inodes"}


def check_unavailable(answer: requests.Response) -> None:
    assert answer.status_code == 503
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert int(answer.headers["Retry-After"]) > 0
    problem = answer.json()
    assert (problem["status"], problem["title"]) == (503, "Database unavailable")
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    assert "127.0.0.1" not in answer.text


def check_health_without_mongodb(answers: dict[str, requests.Response]) -> None:
    health = answers["health"].json()
    assert (answers["health"].status_code, health["status"]) == (200, "critical")
    assert health["services"]["database"]["status"] == "unhealthy"
    assert health["services"]["storage"].keys() == STORAGE
    assert health["services"]["storage"]["status"] == "healthy"
    assert answers["database"].json()["status"] == "unhealthy"
    assert answers["page"].status_code == 200
    assert 'Clustr is <span class="critical">critical</span>' in answers["page"].text
    assert '<dd id="images">not known</dd>' in answers["page"].text
    assert answers["ready"].status_code == 503
    assert (answers["live"].status_code, answers["live"].json()) == (200, {"status": "alive"})
    assert answers["root"].status_code == 200
    assert answers["root"].json()["database"]["status"] == "disconnected"


def test_D8_health_check_that_hangs_is_only_its_own_trouble(service):
    services = service.services()
    assert services["mood"].pop("response_time").endswith(" ms")
    assert services["mood"] == {"status": "healthy", "detail": "7"}

    def answers_in_time() -> list[requests.Response] | None:
        """The answers to more questions than there are threads for the check."""
        with ThreadPoolExecutor(30) as threads:
            answers = list(threads.map(lambda _: service.get("/api/health"), range(30)))
        return answers if max(map(seconds_of, answers)) < 3.5 else None

    (service.folder / "moody").touch()
    try:
        answers = wait_until(answers_in_time, 60, "answers within the time of a check")
    finally:
        (service.folder / "moody").unlink()
    for answer in answers:
        assert answer.json()["services"]["database"]["status"] == "healthy"
        assert answer.json()["services"]["moody"]["status"] == "unhealthy"

    def is_well() -> bool:
        return service.services().get("mood", {}).get("status") == "healthy"

    wait_until(is_well, 60, "the end of the checks that hung")


def test_plugin_cannot_pose_as_what_the_service_needs(service):
    services = service.services()
    assert services["storage"].keys() == STORAGE
    assert "version" in services["database"]


# The last of those that need it whole: the poisonous image stays in it.
def test_D4_poisonous_image_does_not_block_others(service):
    [poisoned] = service.upload(POISON)
    others = service.upload_some(10)
    service.wait_until_processed(others, 60)

    def is_failed() -> bool:
        service.wait_until_processed(service.upload_some(1), 60)
        return service.states([poisoned], "blip") == ["failed"]

    wait_until(is_failed, 120, "the end of the poisonous image")
    assert service.statuses([poisoned]) == ["error"]


# The last of all: workers whose registration Redis has lost are known again at their next
# heartbeat, and until then the service is not well (test_queue.py sees that it comes).
def test_D3_work_that_is_queued_survives_a_flush(whole):
    ids = whole.upload_some(20)
    with Redis.from_url(whole.servers.redis_url) as redis:
        redis.flushall()
        whole.wait_until_processed(ids[:5], 60)
        redis.flushall()
    whole.wait_until_processed(ids, 60)
