"""Contracts that every workflow of the package keeps, whichever way it is built."""

from __future__ import annotations

import inspect
from typing import Any

from nipype.interfaces.base import isdefined
from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline.engine import MapNode, Node, Workflow
from nipype.pipeline.engine.utils import generate_expanded_graph

PATH, TEXT, FLAG, WHOLE, REAL, TABLE, ANY = "path", "text", "flag", "whole", "real", "table", "any"

_KINDS = {
    "BasePath": PATH, "Directory": PATH, "File": PATH, "ImageFileSPM": PATH,
    "Str": TEXT, "String": TEXT, "BaseStr": TEXT, "Unicode": TEXT,
    "Bool": FLAG, "BaseBool": FLAG,
    "Int": WHOLE, "BaseInt": WHOLE,
    "Float": REAL, "BaseFloat": REAL,
    "Dict": TABLE, "DictStrStr": TABLE,
    "Any": ANY, "_Any": ANY, "Python": ANY, "Event": ANY, "Instance": ANY,
}  # fmt: skip
_LISTS = {
    "List",
    "CList",
    "ListStr",
    "InputMultiObject",
    "OutputMultiObject",
    "MultiObject",
    "TraitListObject",
}
_PYTHON = {bool: FLAG, int: WHOLE, float: REAL, str: TEXT}


def kinds(trait: Any) -> set[Any]:
    """Kinds of value that a trait holds; a list of kind k is ``("list", k)``.

    ``any`` stands for traits without a type of their own.
    """
    handler = getattr(trait, "trait_type", None) or getattr(trait, "handler", None) or trait
    name = type(handler).__name__
    if name in _KINDS:
        return {_KINDS[name]}
    if name in ("Union", "Either", "TraitCompound", "CompoundTrait", "_NoneTrait"):
        members = getattr(handler, "list_ctrait_instances", None) or getattr(handler, "handlers", ())
        return set().union(*(kinds(member) for member in members)) if members else {ANY}
    if name in _LISTS:
        inner = {("list", kind) for kind in kinds(handler.inner_traits()[0])}
        multiple = {kind for _, kind in inner} if "Multi" in name else set()
        return inner | multiple
    if name in ("Tuple", "BaseTuple"):
        return {("list", ANY)}
    if name in ("Enum", "BaseEnum"):
        return {_PYTHON.get(type(value), ANY) for value in handler.values or (None,)}
    if name in ("Range", "BaseRange"):
        return {WHOLE} if isinstance(handler.default_value, int) else {REAL}
    return {ANY}


def fits(source: Any, target: Any) -> bool:
    """Whether a value of kind ``source`` may enter a trait of kind ``target``."""
    if ANY in (source, target) or source == target:
        return True
    if isinstance(source, tuple) and isinstance(target, tuple):
        return fits(source[1], target[1])
    return (source, target) in {(PATH, TEXT), (WHOLE, REAL), (FLAG, WHOLE)}


def _end(node: Node, field: str, *, output: bool) -> set[Any]:
    """Kinds at one end of an edge; a field over which a MapNode iterates holds a list."""
    interface = node.interface
    spec = interface._outputs() if output else interface.inputs
    trait = spec.trait(field) if spec is not None else None
    assert trait is not None, f"{node.fullname} has no {'output' if output else 'input'} {field}"
    found = kinds(trait)
    if isinstance(node, MapNode) and (output or field in node.iterfield):
        found = {("list", kind) for kind in found}
    return found


def _mismatches(graph: Any) -> list[str]:
    wrong = []
    for source, target, data in graph.edges(data=True):
        for out_field, in_field in data["connect"]:
            if isinstance(out_field, tuple):  # a function stands between the two ends
                continue
            here, there = _end(source, out_field, output=True), _end(target, in_field, output=False)
            if not any(fits(kind, other) for kind in here for other in there):
                wrong.append(f"{source.fullname}.{out_field} {here} -> {target.fullname}.{in_field} {there}")
    return wrong


def test_traits_match_at_both_ends_of_every_edge(workflow):
    graph = generate_expanded_graph(workflow._create_flat_graph())
    assert len(graph) > 0
    assert _mismatches(graph) == []


def test_a_mismatch_would_be_found():
    from nipype.interfaces.base import (
        BaseInterfaceInputSpec,
        File,
        InputMultiPath,
        SimpleInterface,
        TraitedSpec,
        traits,
    )

    class _In(BaseInterfaceInputSpec):
        number = traits.Int()
        file = File()
        files = InputMultiPath(File())

    class _Out(TraitedSpec):
        table = traits.Dict()
        file = File()
        files = traits.List(File())

    class _Step(SimpleInterface):
        input_spec, output_spec = _In, _Out

    def edges(*fields: tuple[str, str]) -> list[str]:
        workflow = Workflow(name="wf")
        workflow.connect(Node(_Step(), name="a"), fields[0][0], Node(_Step(), name="b"), fields[0][1])
        return _mismatches(workflow._create_flat_graph())

    assert len(edges(("table", "number"))) == 1
    assert len(edges(("files", "file"))) == 1
    assert len(edges(("table", "file"))) == 1
    assert edges(("file", "file")) == edges(("file", "files")) == edges(("files", "files")) == []


def test_mandatory_inputs_are_set_or_connected(workflow):
    graph = workflow._create_flat_graph()
    missing = []
    for node in graph.nodes():
        connected = {field for _, _, data in graph.in_edges(node, data=True) for _, field in data["connect"]}
        connected |= (
            {name for name, _ in (node.iterables or ())} if isinstance(node.iterables, list) else set()
        )
        for name, trait in node.inputs.traits(mandatory=True).items():
            value = getattr(node.inputs, name)
            others = [other for other in trait.xor or () if other != name]
            replaced = any(isdefined(getattr(node.inputs, o)) or o in connected for o in others)
            if name not in connected and not isdefined(value) and not replaced:
                missing.append(f"{node.fullname}.{name}")
    assert missing == []


def test_ports_lead_somewhere(variants):
    idle: dict[str, list[set[str]]] = {}
    for workflow in variants:
        graph = workflow._create_flat_graph()
        for node in graph.nodes():
            if node.fullname == f"{workflow.name}.{node.name}" and node.name in ("inputnode", "outputnode"):
                idle.setdefault(node.name, []).append(set(node.interface._fields) - _used(graph, node))
    never = {name: set.intersection(*sets) for name, sets in idle.items()}
    assert {name: fields for name, fields in never.items() if fields} == {}


def _used(graph: Any, node: Node) -> set[str]:
    """Return the fields of an inputnode that lead on, or of an outputnode that something fills."""
    if node.name == "inputnode":
        pairs = [pair for _, _, data in graph.out_edges(node, data=True) for pair in data["connect"]]
        return {field[0] if isinstance(field, tuple) else field for field, _ in pairs}
    filled = {field for _, _, data in graph.in_edges(node, data=True) for _, field in data["connect"]}
    return filled | {field for field in node.interface._fields if isdefined(getattr(node.inputs, field))}


def test_threads_are_declared_to_the_scheduler(workflow):
    graph = workflow._create_flat_graph()
    wrong = [
        node.fullname
        for node in graph.nodes()
        if hasattr(node.inputs, "num_threads")
        and isdefined(node.inputs.num_threads)
        and node.inputs.num_threads != node.n_procs
    ]
    assert wrong == []


def test_has_ports_and_a_sentence_for_the_methods_section(workflow):
    names = {node.name for node in workflow._graph.nodes()}
    inner = [node for node in workflow._graph.nodes() if isinstance(node, Workflow)]
    flat = list(workflow._create_flat_graph().nodes())
    writes_files = any("DataSink" in type(node.interface).__name__ for node in flat)
    assert "inputnode" in names or not _open_ports(workflow), "no inputnode"
    assert "outputnode" in names or inner or writes_files, "no outputnode"
    sentence = getattr(workflow, "__desc__", None)
    assert isinstance(sentence, str) or inner or writes_files, "no __desc__"


def _open_ports(workflow: Workflow) -> list[str]:
    """Return the fields of inner inputnodes that are neither connected nor set."""
    graph = workflow._create_flat_graph()
    found = []
    for node in graph.nodes():
        if node.name == "inputnode" and isinstance(node.interface, IdentityInterface):
            fed = {field for _, _, data in graph.in_edges(node, data=True) for _, field in data["connect"]}
            found += [
                f for f in node.interface._fields if f not in fed and not isdefined(getattr(node.inputs, f))
            ]
    return found


def test_builder_is_keyword_only_and_documented(builder):
    parameters = inspect.signature(builder).parameters
    kinds_of = {parameter.kind for parameter in parameters.values()}
    assert kinds_of == {inspect.Parameter.KEYWORD_ONLY}
    text = inspect.getdoc(builder) or ""
    assert len(text.splitlines()[0]) > 20
    assert [name for name in parameters if name not in text] == []
