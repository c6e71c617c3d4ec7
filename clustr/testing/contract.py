"""The contract of analyzers, as a test of one line."""

import functools
import inspect
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from clustr.analysis import local_run
from clustr.analysis.ends import End
from clustr.analysis.limits import TimeUp
from clustr.domain import failure_messages
from clustr.domain.models import State
from clustr.plugin_manager import Plugin
from clustr.plugin_manager.declarations import HEAVY_PACKAGES, problem_with_analyzer
from clustr.plugins import Analyzer, Image, Outcome
from clustr.testing.run import check_results, image_of, pillow_as_in_a_worker, plugin_with
from clustr.testing.samples import BROKEN, KINDS, sample_image

IMPORT_SECONDS = 60
CALLED = ("setup", "analyze", "analyze_batch")

# It imports a module by its name, or by its file where that fails, and prints which heavy packages
# were imported with it.
IMPORT = """
import importlib, importlib.util, sys
name, file, *heavy = sys.argv[1:]
try:
    importlib.import_module(name)
except ModuleNotFoundError as error:
    if not file or error.name != name.partition(".")[0]:
        raise
    spec = importlib.util.spec_from_file_location(
        name, file, submodule_search_locations=[file.rpartition("/")[0]]
    )
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
print("imported", *(package for package in heavy if package in sys.modules))
"""


def assert_analyzer_contract(
    analyzer: Analyzer,
    config: Mapping[str, Any] | None = None,
    *,
    secrets: Mapping[str, Any] | None = None,
    results: Mapping[str, dict[str, Any]] | None = None,
) -> None:
    """Assert that an analyzer keeps the contract; the error names the broken rule and a remedy.

    The rules, in the order in which they are checked:

    - *declaration*: its attributes are what Clustr can load.
    - *import*: its module imports no heavy package, such as torch; that belongs in `setup`.
    - *setup*: it succeeds, and once more in the same process.
    - *result*: for every readable sample in its formats it returns a result that fits its schema
      and JSON, or raises `Skip` or `Fail`, and nothing else. It does not fail for all of them.
    - *timeout*: no sample takes longer than its `timeout`.
    - *broken images*: for them, too, it raises `Skip` or `Fail`, or returns a result.
    - *file*: it changes no image, and writes nothing beside them.
    - *same again*: the same image gives the same result.
    - *batch*: `analyze_batch` returns the same for images together as for each alone.

    Where an analyzer calls a service, the fixture `clustr_http` can be that service.

    Args:
        config: `context.config`, as the plugin's schema loads it.
        secrets: `context.secrets`.
        results: the results of the analyzers that it requires, by their names.

    Raises:
        AssertionError: it breaks a rule; the cause is the exception that it raised, if any.
        ValueError: a result that the analyzer requires is not given.
    """
    __tracebackhide__ = True
    if problem := problem_with_analyzer(analyzer):
        broken(analyzer, "declaration", problem, "set the attribute as it is said there")
    check_import(analyzer)
    check_results(analyzer, results)
    plugin = plugin_with(config, secrets)
    with pillow_as_in_a_worker(), tempfile.TemporaryDirectory(prefix="clustr-") as folder:
        files = [Path(shutil.copy(sample_image(kind), folder)) for kind in KINDS]
        given = [image_of(file, results) for file in files]
        in_its_formats = [
            i for i in given if not analyzer.formats or i.content_type in analyzer.formats
        ]
        readable = [image for image in in_its_formats if image.path.stem not in BROKEN]
        first = Trial(analyzer, plugin).alone(in_its_formats)
        check_any_result(analyzer, [first[image.path.stem] for image in readable])
        check_files(analyzer, files)
        again = Trial(analyzer, plugin).alone(readable)
        check_same(analyzer, first, again, "same again", SAME_AGAIN)
        if analyzer.batch_size > 1:
            together = Trial(analyzer, plugin).together(readable)
            check_same(analyzer, first, together, "batch", BATCH)


SAME_AGAIN = (
    "let the result follow from the image, the configuration and the required results alone; a "
    "model that draws lots gets a fixed seed in setup()"
)
BATCH = "look at each image of a batch as if it were alone, and keep their order"


def broken(
    analyzer: Analyzer, rule: str, what: str, mend: str, cause: BaseException | None = None
) -> NoReturn:
    """Raise the error that says which rule was broken.

    Args:
        mend: what the author has to do, as an imperative.
    """
    __tracebackhide__ = True
    name = getattr(analyzer, "name", None) or type(analyzer).__name__
    raise AssertionError(f"{name} breaks the rule {rule!r}: {what}\nTo mend it: {mend}.") from cause


def check_import(analyzer: Analyzer) -> None:
    __tracebackhide__ = True
    problem = problem_with_import(type(analyzer).__module__, file_of(type(analyzer)))
    if problem:
        mend = "let its import succeed, and import what is heavy in setup()"
        broken(analyzer, "import", problem, mend)


def file_of(class_: type) -> str:
    try:
        return inspect.getfile(class_)
    except (OSError, TypeError):
        return ""


@functools.cache
def problem_with_import(module: str, file: str) -> str | None:
    """Why the module of an analyzer cannot be imported as cheaply as it should be."""
    command = [sys.executable, "-c", IMPORT, module, file, *HEAVY_PACKAGES]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=IMPORT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"importing {module} takes longer than {IMPORT_SECONDS} seconds"
    *_, last = done.stdout.splitlines() or [""]
    if done.returncode or not last.startswith("imported"):
        *_, message = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return f"importing {module} fails: {message}"
    heavy = last.split()[1:]
    return f"importing {module} imports {', '.join(heavy)}" if heavy else None


def check_files(analyzer: Analyzer, files: Sequence[Path]) -> None:
    __tracebackhide__ = True
    mend = "only read image.path; what has to be written goes into context.tmpdir"
    for file in files:
        if not file.exists() or file.read_bytes() != sample_image(file.stem).read_bytes():
            broken(analyzer, "file", f"it changed the file of the sample {file.stem}", mend)
    for other in files[0].parent.iterdir():
        if other not in files:
            broken(analyzer, "file", f"it wrote {other.name} beside the images", mend)


def check_any_result(analyzer: Analyzer, ends: Sequence[End]) -> None:
    __tracebackhide__ = True
    if ends and all(end.state is State.FAILED for end in ends):
        what = f"it fails for every readable sample: {ends[0].error}"
        mend = "return results for sound images, and raise Skip for those that are not for it"
        broken(analyzer, "result", what, mend)


def check_same(analyzer: Analyzer, first: "Ends", second: "Ends", rule: str, mend: str) -> None:
    __tracebackhide__ = True
    for kind, end in second.items():
        was = first[kind]
        if (end.state, end.result) != (was.state, was.result):
            what = f"of the sample {kind} it said {describe_end(was)}, and then {describe_end(end)}"
            broken(analyzer, rule, what, mend)


def describe_end(end: End) -> str:
    """The outcome of an analysis in a few words."""
    return json.dumps(end.result) if end.state is State.SUCCEEDED else f"{end.state}: {end.error}"


Ends = dict[str, End]


class Trial:
    """One run of an analyzer, and the exceptions that its methods raise."""

    def __init__(self, analyzer: Analyzer, plugin: Plugin):
        self._analyzer = analyzer
        self._plugin = plugin
        self._raised: list[BaseException] = []

    def alone(self, images: Sequence[Image]) -> Ends:
        """How the analysis of each image ends, by the names of the samples."""
        __tracebackhide__ = True
        ends: Ends = {}
        with self._recording():
            for image, end in local_run.run_each(self._analyzer, self._plugin, images):
                self._check_end(image.path.stem, end)
                ends[image.path.stem] = end
        return ends

    def together(self, images: Sequence[Image]) -> Ends:
        """The same of images that are handed over `batch_size` at a time."""
        __tracebackhide__ = True
        with self._recording():
            ends = list(local_run.run_in_batches(self._analyzer, self._plugin, images))
        for error in self._raised:
            if not isinstance(error, Outcome):
                raised = failure_messages.describe_exception(error)
                what = f"analyze_batch() raised {raised} for images it takes alone"
                broken(self._analyzer, "batch", what, BATCH, error)
        return {image.path.stem: end for image, end in ends}

    def _check_end(self, kind: str, end: End) -> None:
        """Check that an analysis may end like this, and forget what was raised."""
        __tracebackhide__ = True
        cause = self._raised[-1] if self._raised else None
        self._raised.clear()
        if end.state is State.DEFERRED:
            self._refuse_deferral(kind, end, cause)
        if isinstance(cause, Outcome) or end.state in (State.SUCCEEDED, State.SKIPPED):
            return
        rule, mend = (
            "result",
            "return a result, or raise Skip or Fail with a reason",
        )
        if isinstance(cause, TimeUp) or end.seconds > self._analyzer.timeout:
            rule, mend = "timeout", "be quicker, or raise the attribute timeout"
        elif cause is None:
            schema = self._analyzer.result_schema.__name__
            mend = f"return a dict as {schema} declares it, of plain JSON values"
        elif kind in BROKEN:
            rule = "broken images"
            mend = "use image.open(), which raises Fail, or raise Fail or Skip yourself"
        broken(self._analyzer, rule, f"of the sample {kind}: {end.error}", mend, cause)

    def _refuse_deferral(self, kind: str, end: End, cause: BaseException | None) -> NoReturn:
        __tracebackhide__ = True
        if not isinstance(cause, Outcome):
            mend = "let setup() succeed each time it is called"
            broken(self._analyzer, "setup", str(end.error), mend, cause)
        what = f"of the sample {kind} it says that it has to wait: {end.error}"
        mend = "give it a service that answers, such as the fixture clustr_http"
        broken(self._analyzer, "result", what, mend, cause)

    @contextmanager
    def _recording(self) -> Iterator[None]:
        """Record what the analyzer's methods raise, and the outcomes that they return or yield."""
        own = vars(self._analyzer)
        before = dict(own)
        own.update({name: self._record(getattr(self._analyzer, name)) for name in CALLED})
        try:
            yield
        finally:
            for name in CALLED:
                own.pop(name)
            own.update({name: before[name] for name in CALLED if name in before})

    def _record(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def recording(*arguments: Any) -> Any:
            try:
                returned = call(*arguments)
            except BaseException as error:
                self._raised.append(error)
                raise
            if isinstance(returned, Iterator):
                return self._record_yielded(returned)
            if isinstance(returned, list | tuple):
                self._raised += [answer for answer in returned if isinstance(answer, Outcome)]
            return returned

        return recording

    def _record_yielded(self, answers: Iterator[Any]) -> Iterator[Any]:
        """Yield the answers to a batch; record what they raise, and the outcomes among them."""
        try:
            for answer in answers:
                if isinstance(answer, tuple):
                    self._raised += [part for part in answer if isinstance(part, Outcome)]
                yield answer
        except GeneratorExit:  # Enough was asked for: `answers` end with this generator.
            raise
        except BaseException as error:
            self._raised.append(error)
            raise
