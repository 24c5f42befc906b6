"""Lint of specification files: everything that can be known to be wrong without running a host.

A file is read strictly, then compared with its JSON Schema, then with the meaning of the language: names in every
expression, coverage of layouts, places of fields, complete outcomes, reachable rules, examples that encode and
decode to themselves. All problems of a step are shown at once; a step is left out where an earlier one makes it
meaningless.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvabi.abi import (
    lint_build,
    lint_call_scopes,
    lint_calls,
    lint_examples,
    lint_guards,
    lint_handles,
    lint_messages,
    lint_places,
    lint_platforms,
    lint_rules,
    lint_scope,
    lint_transports,
    schema,
)
from hvabi.abi.diagnostics import Collector, Diagnostic
from hvabi.abi.errors import SpecError
from hvabi.abi.lint_context import Context, Report
from hvabi.abi.registry import abi_files, bundled, spec_root
from hvabi.abi.schema import near
from hvabi.abi.source import load_file, plain

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from hvabi.abi.source_node import SourceFile

_OWN_IDS: Mapping[str, str] = {
    "file-name": "The id in a file is not the name of the file.",
    "file-license": "The first line of a file is not the license tag.",
    "no-files": "No specification file was found.",
    "abi-duplicate": "Two files describe the same ABI.",
}
YAML_IDS: Mapping[str, str] = {
    "yaml-alias": "YAML aliases are not allowed.",
    "yaml-ambiguous-number": "A number is written in a form that YAML 1.1 and 1.2 read differently.",
    "yaml-ambiguous-word": "A word such as `on` or `yes` means a truth value in YAML 1.1.",
    "yaml-anchor": "YAML anchors are not allowed.",
    "yaml-base-60": "A value such as 51:12 is a number in YAML 1.1.",
    "yaml-complex-key": "A list or mapping cannot be a key.",
    "yaml-control-character": "A character that cannot be shown stands in the file.",
    "yaml-directive": "YAML directives are not allowed.",
    "yaml-duplicate-key": "A key is given twice.",
    "yaml-empty-document": "The file has no content.",
    "yaml-empty-key": "A key is missing.",
    "yaml-empty-value": "A value is missing.",
    "yaml-file-too-large": "The file is larger than any specification.",
    "yaml-float": "There are only integers.",
    "yaml-integer-range": "An integer is beyond 2**128.",
    "yaml-leading-zero": "A number with leading zeros is octal to some readers.",
    "yaml-merge-key": "YAML merge keys are not allowed.",
    "yaml-multiple-documents": "A file holds one document.",
    "yaml-non-string-key": "A key is no text.",
    "yaml-not-utf8": "The file is not UTF-8.",
    "yaml-scalar-too-long": "A text is longer than any needs to be.",
    "yaml-syntax": "The file is no YAML.",
    "yaml-tag": "YAML tags are not allowed.",
    "yaml-timestamp": "A value is a time stamp in YAML 1.1.",
    "yaml-too-deep": "Values are nested too deep.",
    "yaml-too-many-nodes": "The file has more values than any specification.",
    "yaml-unreadable": "A file cannot be opened or read.",
}
"""What `hvabi.abi.source` reports."""

ALL_IDS: Mapping[str, str] = {
    **YAML_IDS,
    **schema.IDS,
    **_OWN_IDS,
    **lint_build.IDS,
    **lint_scope.IDS,
    **lint_messages.IDS,
    **lint_places.IDS,
    **lint_transports.IDS,
    **lint_call_scopes.IDS,
    **lint_calls.IDS,
    **lint_rules.IDS,
    **lint_guards.IDS,
    **lint_handles.IDS,
    **lint_examples.IDS,
    **lint_platforms.IDS,
    "too-many-problems": "A run found more problems than are shown.",
}
"""Every diagnostic id that a specification file can get, with one sentence each."""

LICENSE_LINE = "# SPDX-License-Identifier: MIT"
"""The first line of every specification file."""


def lint_paths(paths: Iterable[str | os.PathLike[str]] | None = None) -> list[Diagnostic]:
    """Return every problem of the files, sorted by file and line; empty when they are right.

    Args:
        paths: files, or folders in which all ``*.yaml`` below are read; None for the bundled specifications. Shared
            files that they use are read too.

    """
    run = _Run(None if paths is None else [Path(path) for path in paths])
    return list(run.all())


class _Run:
    """One run over some files."""

    def __init__(self, paths: list[Path] | None) -> None:
        self.collector = Collector()
        self.paths = [spec_root()] if paths is None else paths
        self.contexts: list[Context] = []
        self._seen: dict[Path, dict[str, Any] | None] = {}

    def all(self) -> tuple[Diagnostic, ...]:
        """Check every file, then what concerns several."""
        for path in self.paths:
            files = sorted(path.rglob("*.yaml")) if path.is_dir() else [path]
            if not files:
                self.collector.add(
                    Diagnostic(id="no-files", path=str(path), message="no *.yaml file is in this folder")
                )
            for file in files:
                self.file(file)
        lint_rules.check_rule_ids(self.contexts)
        self._check_abis()
        return self.collector.diagnostics

    def file(self, path: Path) -> dict[str, Any] | None:
        """Check one file once; return its data where it fits its schema."""
        key = path.resolve()
        if key not in self._seen:
            self._seen[key] = None
            try:
                source = load_file(path)
            except SpecError as error:
                self.collector.extend(error.diagnostics)
            else:
                self._seen[key] = self._source(source, path)
        return self._seen[key]

    def _source(self, source: SourceFile, path: Path) -> dict[str, Any] | None:
        report = Report(source=source, collector=self.collector)
        if source.line(1) != LICENSE_LINE:
            self.collector.add(
                Diagnostic(
                    id="file-license",
                    path=source.path,
                    line=1,
                    message="the first line is not the license tag",
                    hint=f"write {LICENSE_LINE}",
                    source_line=source.line(1),
                )
            )
        found = schema.validate(source)
        self.collector.extend(found)
        if found:
            return None
        data: Any = plain(source.root)
        kind = schema.kind_of(data)
        if data[kind] != path.stem:
            report.error(
                (kind,),
                "file-name",
                f"the file is called {path.stem} and describes `{data[kind]}`",
                "rename one",
            )
        if kind == "shared":
            self._shared(data, report)
        elif kind == "platform":
            lint_platforms.check_platform(data, report)
        else:
            self._abi(data, path, report)
        return data  # type: ignore[no-any-return]  # the schema was checked

    def _shared(self, data: dict[str, Any], report: Report) -> None:
        built = lint_build.build_shared(data, report.source.path, report)
        lint_messages.check_enums(built.enums.values(), report)
        lint_messages.check_constants(built.constants.values(), report)
        lint_messages.check_layouts(built.layouts.values(), report)

    def _abi(self, data: dict[str, Any], path: Path, report: Report) -> None:
        beside = path.resolve().parent.parent / "shared"
        folder = beside if beside.is_dir() else spec_root() / "shared"
        shared: dict[str, dict[str, Any]] = {}
        for name in data.get("uses", ()):
            file = folder / f"{name}.yaml"
            if file.is_file():
                part = self.file(file)
                if part is None:
                    return  # Its errors are shown; without it every name here would be unknown.
                shared[name] = part
        abi, exprs = lint_build.build_tolerant(data, report.source.path, shared, report)
        context = Context(report=report, data=data, abi=abi, exprs=exprs)
        self.contexts.append(context)
        lint_guards.check_guards(context)
        lint_guards.check_profiles(context)
        lint_guards.check_sources(context)
        lint_messages.check_enums(abi.enums.values(), report, context.revisions)
        lint_messages.check_constants(abi.constants.values(), report)
        lint_messages.check_layouts(abi.layouts.values(), report, context.revisions)
        lint_messages.check_messages(context)
        lint_transports.check_transports(context)
        for call in abi.calls.values():
            scopes = lint_calls.CallChecks(context, call)
            scopes.check()
            lint_rules.RuleChecks(scopes).check()
            lint_handles.HandleChecks(scopes).check()
        lint_handles.check_handles(context)
        lint_rules.check_statuses(context)
        lint_rules.check_status_written(context)
        lint_guards.check_uses(context, shared)
        lint_examples.check_examples(context, code=not report.errors)

    def _check_abis(self) -> None:
        """Check what one file says of another: inner calls of a VMM, and ids given twice."""
        known = {context.abi.id: context.abi for context in reversed(self.contexts)}
        for context in self.contexts:
            twin = known[context.abi.id]
            if twin is not context.abi:
                context.report.error(
                    ("abi",), "abi-duplicate", f"`{context.abi.id}` is described in {twin.path} already"
                )
            for call in context.abi.calls.values():
                if call.vmm is not None:
                    self._check_vmm(context, call.name, known)

    def _check_vmm(self, context: Context, name: str, known: Mapping[str, Any]) -> None:
        vmm = context.abi.calls[name].vmm
        if vmm is None or vmm.abi is None:
            return
        inner = known.get(vmm.abi)
        if inner is None and vmm.abi in abi_files():
            try:
                inner = bundled(vmm.abi)
            except SpecError:
                return  # Lint of that file shows why.
        if inner is None:
            hint = near(vmm.abi, {*known, *abi_files()})
            where = (*vmm.pointer, "abi")
            context.report.error(where, "vmm-unknown-abi", f"there is no ABI `{vmm.abi}`", hint)
            return
        if vmm.call is not None and vmm.call not in inner.calls:
            hint = near(vmm.call, inner.calls)
            where = (*vmm.pointer, "call")
            context.report.error(where, "unknown-call", f"`{vmm.abi}` has no call `{vmm.call}`", hint)
            return
        call = inner.calls[vmm.call] if vmm.call else inner.convert_call or next(iter(inner.calls.values()))
        message = inner.messages.get(call.request)
        if message is None:
            return
        given = {field.partition(".")[0] for field in vmm.request}
        for item in message.fields.values():
            if not (item.name in given or item.const or item.default or item.reserved or item.is_list):
                context.report.error(
                    (*vmm.pointer, "request"),
                    "vmm-field-missing",
                    f"field `{item.name}` of the request of `{vmm.abi}` has no default and is not set",
                )
        for field in vmm.request:
            first = field.partition(".")[0]
            if first not in message.fields:
                context.report.error(
                    (*vmm.pointer, "request"),
                    "vmm-unknown-field",
                    f"the request of `{vmm.abi}` has no field `{field}`",
                    near(first, message.fields),
                    key=field,
                )


__all__ = ["ALL_IDS", "LICENSE_LINE", "YAML_IDS", "lint_paths"]
