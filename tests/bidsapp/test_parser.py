"""The command line: every option changes one setting, every setting is obeyed somewhere."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

from hyperprep.bidsapp.cli.parser import build_parser, parse_settings
from hyperprep.bidsapp.config import OutputSpace, Settings
from hyperprep.exceptions import UsageError

BASE = ["in", "out", "participant"]
#: Fields that no option sets: the three arguments, and the name of the run.
NOT_OPTIONS = {"bids_dir", "output_dir", "analysis_level", "run_uuid"}

OPTIONS = [
    ("--participant-label sub-01 02 01", "participant_label", ("01", "02")),
    ("--participant_label 03", "participant_label", ("03",)),
    ("--session-label ses-pre post", "session_label", ("pre", "post")),
    ("--session_label pre", "session_label", ("pre",)),
    ("--bids-filter-file {file}", "bids_filter_file", "{file}"),
    ("--subject-anatomical-reference first-lex", "subject_anatomical_reference", "first-lex"),
    ("--bids-database-dir {folder}", "bids_database_dir", "{folder}"),
    ("-d anat={folder}", "derivatives", (("anat", "{folder}"),)),
    ("--derivatives anat={folder} b={folder}", "derivatives", (("anat", "{folder}"), ("b", "{folder}"))),
    ("--skip-bids-validation", "skip_bids_validation", True),
    ("--skip_bids_validation", "skip_bids_validation", True),
    ("--nprocs 3", "nprocs", 3),
    ("--nthreads 3", "nprocs", 3),
    ("--n-cpus 3", "nprocs", 3),
    ("--n_cpus 3", "nprocs", 3),
    ("--omp-nthreads 1", "omp_nthreads", 1),
    ("--omp_nthreads 1", "omp_nthreads", 1),
    ("--mem 8GB", "mem_gb", 8.0),
    ("--mem-mb 6000", "mem_gb", 6.0),
    ("--mem_mb 6000", "mem_gb", 6.0),
    ("--device cuda:1", "device", "cuda:1"),
    ("--use-plugin {file}", "use_plugin", "{file}"),
    ("--nipype-plugin-file {file}", "use_plugin", "{file}"),
    ("--output-spaces A:res-2 T1w", "output_spaces", (OutputSpace("A", 2), OutputSpace("T1w"))),
    ("--output_spaces A", "output_spaces", (OutputSpace("A"),)),
    ("--template MNI152NLin2009cAsym", "template", "MNI152NLin2009cAsym"),
    ("--lambda 0.25", "lam", 0.25),
    ("--lambda-regions hippocampus,cortex 16", "lambda_regions", ("hippocampus", "cortex", "16")),
    ("--lambda_regions cortex", "lambda_regions", ("cortex",)),
    ("--labels brain,16 thalamus", "labels", ("brain", "16", "thalamus")),
    ("--symmetric", "symmetric", True),
    ("--longitudinal", "longitudinal", True),
    ("--refine none", "refine", "none"),
    ("--uncertainty", "uncertainty", True),
    ("--probsegs", "probsegs", True),
    ("--topology", "topology", True),
    ("--controls {file}", "controls", "{file}"),
    ("--topology-mask", "topology_mask", True),
    ("--topology_mask", "topology_mask", True),
    ("--labels hippocampus 17", "labels", ("hippocampus", "17")),
    ("--few-shot claustrum={folder}", "few_shot", (("claustrum", "{folder}"),)),
    ("--few_shot a={folder} --few-shot b={folder}", "few_shot", (("a", "{folder}"), ("b", "{folder}"))),
    ("--skull-strip-t1w force", "skull_strip_t1w", "force"),
    ("--skull_strip_t1w skip", "skull_strip_t1w", "skip"),
    ("--weights-dir {folder}", "weights_dir", "{folder}"),
    ("--offline", "offline", True),
    ("-w elsewhere", "work_dir", Path("elsewhere").absolute()),
    ("--work-dir elsewhere", "work_dir", Path("elsewhere").absolute()),
    ("--work_dir elsewhere", "work_dir", Path("elsewhere").absolute()),
    ("--clean-workdir", "clean_workdir", True),
    ("--clean_workdir", "clean_workdir", True),
    ("--config-file {toml}", "config_file", "{toml}"),
    ("--write-graph", "write_graph", True),
    ("--stop-on-first-crash", "stop_on_first_crash", True),
    ("--stop_on_first_crash", "stop_on_first_crash", True),
    ("--reports-only", "reports_only", True),
    ("--reports_only", "reports_only", True),
    ("--boilerplate-only", "boilerplate_only", True),
    ("--boilerplate", "boilerplate_only", True),
    ("--prefetch", "prefetch", True),
    ("--resource-monitor", "resource_monitor", True),
    ("-v", "verbose", 1),
    ("-vv", "verbose", 2),
    ("--verbose --verbose", "verbose", 2),
]


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """A file, a folder and an empty configuration, with spaces in their names."""
    found = {"file": tmp_path / "a file", "folder": tmp_path / "a folder", "toml": tmp_path / "a.toml"}
    found["file"].write_text("x")
    found["toml"].write_text("")
    found["folder"].mkdir()
    return found


def fill(value: object, places: dict[str, Path]) -> object:
    if isinstance(value, tuple):
        return tuple(fill(item, places) for item in value)
    return places[value.strip("{}")] if isinstance(value, str) and value.startswith("{") else value


@pytest.mark.parametrize(("words", "name", "expected"), OPTIONS, ids=[words for words, _, _ in OPTIONS])
def test_an_option_changes_one_setting(
    words: str, name: str, expected: object, places: dict[str, Path]
) -> None:
    given = [word.format(**places) for word in words.split(" ")]
    settings = parse_settings([*BASE, *given])
    defaults = parse_settings(BASE)
    changed = {
        field.name
        for field in dataclasses.fields(Settings)
        if getattr(settings, field.name) != getattr(defaults, field.name)
    }
    assert changed - {"run_uuid"} == {name}
    assert getattr(settings, name) == fill(expected, places)


def test_every_option_and_every_setting_is_in_the_table() -> None:
    tried = {word for words, _, _ in OPTIONS for word in words.split(" ") if word.startswith("-")}
    known = {option for action in build_parser()._actions for option in action.option_strings}
    assert known - {"-h", "--help", "--version"} == (tried - {"-vv"})
    reached = {name for _, name, _ in OPTIONS}
    assert {field.name for field in dataclasses.fields(Settings)} - NOT_OPTIONS == reached


def test_every_setting_is_read_outside_the_parser(repository: Path) -> None:
    """No setting is accepted and ignored: each is an attribute that some other code looks at."""
    read: set[str] = set()
    for path in (repository / "bidsapp").glob("*.py"):
        if path.name != "config.py":
            tree = ast.parse(path.read_text())
            read |= {
                node.attr
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "settings"
            }
    # Threads are read through the property that holds their default, the file by the parser itself.
    read |= {"omp_nthreads"} if "threads_per_node" in read else set()
    assert {field.name for field in dataclasses.fields(Settings)} - read == {"config_file"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--lambda 1.5", "'auto' or a number from 0 to 1"),
        ("--lambda -0.1", "'auto' or a number from 0 to 1"),
        ("--lambda nan", "'auto' or a number from 0 to 1"),
        ("--lambda much", "'auto' or a number from 0 to 1"),
        ("--participant-label sub_01", "letters and digits only"),
        ("--nprocs 0", "not a whole number above 0"),
        ("--nprocs 2 --omp-nthreads 3", "more than --nprocs 2"),
        ("--mem 8", "a bare number is MB"),
        ("--mem lots", "is no amount of memory"),
        ("--device gpu", "is no device"),
        ("--refine full", "invalid choice: 'full'"),
        ("--output-spaces MNI:res-native", "only res-1 to res-9"),
        ("--output-spaces MNI:2", "only res-1 to res-9"),
        ("--bids-filter-file /nowhere.json", "/nowhere.json does not exist"),
        ("-d a=/nowhere", "/nowhere does not exist"),
        ("-d raw=/tmp", "stands for the input data set"),
        ("-d a=/tmp a=/", "the name a is given twice"),
        ("--reports-only --boilerplate-only", "not allowed with"),
        ("--prefetch --reports-only", "not allowed with"),
        ("--prefetch --offline", "leave one of them out"),
        ("--budget fast", "unrecognized arguments: --budget"),
        ("--part 01", "unrecognized arguments: --part"),
    ],
)
def test_an_impossible_command_line_is_refused(words: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        parse_settings([*BASE, *words.split(" ")])


def test_the_group_level_takes_no_option_it_would_ignore() -> None:
    with pytest.raises(UsageError, match="the group level takes no --labels, --lambda"):
        parse_settings(["in", "out", "group", "--lambda", "0.5", "--labels", "brain"])
    assert parse_settings(["in", "out", "group", "--participant-label", "01"]).participant_label == ("01",)


def write_toml(folder: Path, text: str) -> list[str]:
    path = folder / "settings.toml"
    path.write_text(text)
    return ["--config-file", str(path)]


def test_a_configuration_file_sets_what_the_command_line_leaves_open(tmp_path: Path) -> None:
    words = write_toml(
        tmp_path,
        """
        participant-label = ["01", "sub-02"]
        lambda = 0.5
        n_cpus = 4
        mem = "8GB"
        work-dir = "a folder"
        verbose = 2
        write-graph = true
        offline = false
        labels = "hippocampus"
        """,
    )
    settings = parse_settings([*BASE, *words, "--lambda", "auto", "-v", "--participant-label", "03"])
    assert settings.participant_label == ("03",)
    assert settings.lam is None
    assert settings.verbose == 1
    assert (settings.nprocs, settings.mem_gb) == (4, 8.0)
    assert settings.work_dir == Path("a folder").absolute()
    assert settings.write_graph is True
    assert settings.offline is False
    assert settings.labels == ("hippocampus",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lamda = 0.5", "unknown option 'lamda' (did you mean 'lambda'?)"),
        ("bids_dir = '/data'", "unknown option 'bids_dir'"),
        ("config-file = 'b.toml'", "unknown option 'config-file'"),
        ("lambda = 2", "'auto' or a number from 0 to 1"),
        ("lambda = [0.1, 0.2]", "takes one value, not a list"),
        ("lambda = true", "must be text, a number or a list"),
        ("write-graph = 'yes'", "must be true or false"),
        ("verbose = true", "must be a whole number"),
        ("nprocs = 2\nn-cpus = 3", "'nprocs' and 'n-cpus' are the same option"),
        ("participant-label = []", "must be text, a number or a list"),
        ("[workflow]\nlambda = 1", "unknown option 'workflow'"),
        ("lambda = ", "is not valid TOML"),
    ],
)
def test_a_wrong_configuration_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        parse_settings([*BASE, *write_toml(tmp_path, text)])
    assert message in str(caught.value)
    assert "settings.toml" in str(caught.value)


def test_the_settings_a_run_records_can_be_read_again(tmp_path: Path, settings: Settings) -> None:
    from hyperprep.bidsapp.logs import participant_log_dir, write_run_record

    spaces = (OutputSpace("MNI152NLin2009aSym", 2), OutputSpace("T1w"))
    first = dataclasses.replace(
        settings,
        derivatives=(("a", tmp_path),),
        labels=("brain", "17"),
        lam=0.5,
        mem_gb=8.0,
        output_spaces=spaces,
        participant_label=("01",),
        verbose=2,
        write_graph=True,
    )
    write_run_record(first, "01", {})
    path = participant_log_dir(first, "01") / "settings.toml"
    argv = [str(first.bids_dir), str(first.output_dir), "participant", "--config-file", str(path)]
    again = parse_settings(argv)
    assert dataclasses.replace(again, run_uuid="test", config_file=None) == first


def test_help_and_version_end_well(capsys: pytest.CaptureFixture[str]) -> None:
    for word, expected in (("--help", "exit codes:"), ("--version", "HyperPrep 0.")):
        with pytest.raises(SystemExit) as ended:
            parse_settings([word])
        assert ended.value.code == 0
        assert expected in capsys.readouterr().out
