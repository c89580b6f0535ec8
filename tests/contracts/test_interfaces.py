"""Contracts that every interface of the package keeps."""

from __future__ import annotations

import inspect
import pickle

import pytest
from nipype.interfaces.base import BaseInterface, BaseInterfaceInputSpec, TraitedSpec

# What Nipype 1.11 reads and what traits itself adds. Any other keyword is stored in silence.
NIPYPE_METADATA = {
    "allowed_extensions", "argstr", "container_only", "copyfile", "deprecated", "desc", "exists",
    "extensions", "field", "formatter", "genfile", "hash_files", "keep_extension", "loc", "mandatory",
    "max_ver", "maxlen", "min_ver", "minlen", "name_source", "name_template", "new_name", "nohash",
    "output_name", "position", "requires", "resolve", "sep", "units", "usedefault", "xor",
}  # fmt: skip
TRAITS_METADATA = {
    "array", "auto_set", "cols", "comparison_mode", "copy", "default", "default_kind", "default_value",
    "editor", "enter_set", "evaluate", "exclude_high", "exclude_low", "high", "label", "low", "mode",
    "multi", "parent", "rich_compare", "rows", "trait_type", "transient", "type", "values", "visible",
}  # fmt: skip

RESOURCES = ("num_threads", "use_gpu", "device", "weights_dir")


def _traits(spec: type[TraitedSpec]):
    for name, trait in sorted(spec().traits(transient=None).items()):
        if name not in ("trait_added", "trait_modified"):
            yield name, trait


def _specs(interface_class: type[BaseInterface]):
    return [spec for spec in (interface_class.input_spec, interface_class.output_spec) if spec is not None]


def test_every_trait_says_what_it_is(interface_class):
    silent = [name for spec in _specs(interface_class) for name, trait in _traits(spec) if not trait.desc]
    assert silent == []


def test_no_misspelt_metadata(interface_class):
    known = NIPYPE_METADATA | TRAITS_METADATA
    unknown = {
        f"{spec.__name__}.{name}: {sorted(set(trait.__dict__) - known)}"
        for spec in _specs(interface_class)
        for name, trait in _traits(spec)
        if set(trait.__dict__) - known
    }
    assert unknown == set()


def test_misspelt_metadata_would_be_found():
    from nipype.interfaces.base import traits

    class _Misspelt(BaseInterfaceInputSpec):
        threads = traits.Int(dec="not a description")

    trait = _Misspelt().trait("threads")
    assert not trait.desc
    assert set(trait.__dict__) - NIPYPE_METADATA - TRAITS_METADATA == {"dec"}


def test_specs_are_private_and_of_nipype(interface_class):
    assert issubclass(interface_class.input_spec, BaseInterfaceInputSpec)
    assert interface_class.output_spec is None or issubclass(interface_class.output_spec, TraitedSpec)
    own = [spec for spec in _specs(interface_class) if spec.__module__.startswith("hyperprep.")]
    assert [spec.__name__ for spec in own if not spec.__name__.startswith("_")] == []


def test_resources_do_not_enter_the_hash(interface_class):
    inputs = interface_class.input_spec()
    own = inputs.copyable_trait_names()  # ``trait(name)`` invents undeclared ones once they were looked up
    hashed = [name for name in RESOURCES if name in own and not inputs.trait(name).nohash]
    assert hashed == []


def test_weights_enter_the_hash(interface_class):
    inputs = interface_class.input_spec()
    if "weights_dir" not in inputs.copyable_trait_names():
        pytest.skip("runs no network")
    digest = inputs.trait("weights_sha256")
    assert digest is not None
    assert not digest.nohash


def test_pickles(interface_class):
    interface = interface_class()
    again = pickle.loads(pickle.dumps(interface))
    assert type(again) is interface_class
    before, after = interface.inputs.get_traitsfree(), again.inputs.get_traitsfree()
    assert {name: value for name, value in after.items() if value != []} == before


def test_has_a_docstring(interface_class):
    assert inspect.getdoc(interface_class)
    assert interface_class.__doc__, f"{interface_class.__name__} only inherits its docstring"


def test_mandatory_inputs_have_no_default(interface_class):
    both = [n for n, trait in _traits(interface_class.input_spec) if trait.mandatory and trait.usedefault]
    assert both == []
