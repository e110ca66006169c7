#!/usr/bin/env python3
"""Holds the dependency tree to deny.toml: banned crates, single versions, licences, sources.

Reads `cargo metadata` of the workspace, all targets and all dependencies (also those of tests and build scripts), so
that nothing hides behind a platform. Exit status 1 with one line for each breach.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def allowed_by(expression: str, allow: set[str]) -> bool:
    """Whether an SPDX expression can be satisfied by licences of `allow`. `MIT/Apache-2.0` is the old way to say OR."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))
    position = 0

    def peek() -> str | None:
        return tokens[position] if position < len(tokens) else None

    def take() -> str:
        nonlocal position
        token = tokens[position]
        position += 1
        return token

    def term() -> bool:
        token = take()
        if token == "(":
            value = any_of()
            if take() != ")":
                raise ValueError("unbalanced parentheses")
            return value
        if peek() == "WITH":
            take()
            token = f"{token} WITH {take()}"
        return token in allow

    def all_of() -> bool:
        value = term()
        while peek() == "AND":
            take()
            value = term() and value
        return value

    def any_of() -> bool:
        value = all_of()
        while peek() == "OR":
            take()
            value = all_of() or value
        return value

    try:
        value = any_of()
        return value and position == len(tokens)
    except (IndexError, ValueError):
        return False


def main() -> int:
    rules = tomllib.loads((ROOT / "deny.toml").read_text())
    metadata = json.loads(
        subprocess.run(
            ["cargo", "metadata", "--format-version", "1", "--locked"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        ).stdout
    )
    members = set(metadata["workspace_members"])
    breaches: list[str] = []

    versions: dict[str, set[str]] = defaultdict(set)
    for package in metadata["packages"]:
        versions[package["name"]].add(package["version"])

    for rule in rules["bans"]["deny"]:
        name = rule["crate"]
        found = sorted(versions.get(name, ()))
        if rule.get("deny-multiple-versions"):
            if len(found) > 1:
                breaches.append(f"{name}: {' and '.join(found)} are both in the tree; `cargo tree -i {name}@{found[0]}` says why")
        elif found:
            breaches.append(f"{name} {', '.join(found)} is banned; `cargo tree -i {name}` says who brings it")

    allow = set(rules["licenses"]["allow"])
    registries = {f"registry+{url}" for url in rules["sources"]["allow-registry"]}
    for package in metadata["packages"]:
        label = f"{package['name']} {package['version']}"
        if package["id"] in members:
            for dependency in package["dependencies"]:
                if dependency["req"] == "*" and not dependency.get("path"):
                    breaches.append(f"{label}: wildcard version for {dependency['name']}")
            continue
        if package["source"] not in registries:
            breaches.append(f"{label}: comes from {package['source']}")
        expression = package["license"]
        if not expression:
            breaches.append(f"{label}: names no licence")
        elif not allowed_by(expression, allow):
            breaches.append(f"{label}: licence {expression} is not in deny.toml")

    for breach in breaches:
        print(f"error: {breach}", file=sys.stderr)
    once = sum(1 for rule in rules["bans"]["deny"] if rule.get("deny-multiple-versions"))
    if not breaches:
        print(f"dependencies: {len(metadata['packages'])} packages, bans, licences and sources hold; {once} crates are single")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
