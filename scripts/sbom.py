#!/usr/bin/env python3
"""Writes what the libraries and mte are made of, as CycloneDX 1.5 in JSON, from Cargo.lock and cargo's metadata.

    sbom.py >transfer-engine.cdx.json

Crates that are compiled into what is shipped are "required", those of build scripts and macros alone "excluded", those of tests are left out.
The hash of a crate is that of its file in the registry, as Cargo.lock has it. The same commit gives the same text.
"""

import datetime
import json
import os
import pathlib
import subprocess
import tomllib
import uuid

TOP = pathlib.Path(__file__).resolve().parent.parent
SHIPPED = ("transfer-engine", "transfer-engine-capi")


def metadata():
    cargo = os.environ.get("CARGO", "cargo")
    command = [cargo, "metadata", "--format-version=1", "--locked", "--filter-platform=x86_64-unknown-linux-gnu"]
    return json.loads(subprocess.run(command, cwd=TOP, check=True, stdout=subprocess.PIPE).stdout)


def toml(path):
    return tomllib.loads((TOP / path).read_text())


def reached(nodes, roots, packages):
    """Ids of crates that the roots need, and of those among them that are compiled into what is shipped."""
    needed, shipped = set(), set()
    todo = [(root, True) for root in roots]
    while todo:
        identity, is_shipped = todo.pop()
        if identity in (shipped if is_shipped else needed):
            continue
        needed.add(identity)
        if is_shipped:
            shipped.add(identity)
        for dependency in nodes[identity]["deps"]:
            kinds = {kind["kind"] for kind in dependency["dep_kinds"]} - {"dev"}
            macro = any("proc-macro" in target["kind"] for target in packages[dependency["pkg"]]["targets"])
            if kinds:
                todo.append((dependency["pkg"], is_shipped and None in kinds and not macro))
    return needed, shipped


def licence(package, clarified):
    said = clarified.get(package["name"]) or package["license"]
    # The older spelling of OR.
    return said.replace("/", " OR ")


def component(package, checksum, scope, clarified):
    purl = f"pkg:cargo/{package['name']}@{package['version']}"
    result = {"type": "library", "bom-ref": purl, "name": package["name"], "version": package["version"], "scope": scope}
    if package["description"]:
        result["description"] = " ".join(package["description"].split())
    if checksum:
        result["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    result |= {"licenses": [{"expression": licence(package, clarified)}], "purl": purl}
    return result


def main():
    cargo = metadata()
    packages = {package["id"]: package for package in cargo["packages"]}
    nodes = {node["id"]: node for node in cargo["resolve"]["nodes"]}
    roots = [identity for identity, package in packages.items() if package["source"] is None and package["name"] in SHIPPED]
    needed, shipped = reached(nodes, roots, packages)
    locked = {(row["name"], row["version"]): row.get("checksum") for row in toml("Cargo.lock")["package"]}
    clarified = {row["crate"]: row["expression"] for row in toml("deny.toml")["licenses"]["clarify"]}

    def entry(identity):
        package = packages[identity]
        checksum = locked[package["name"], package["version"]]
        return component(package, checksum, "required" if identity in shipped else "excluded", clarified)

    components = {identity: entry(identity) for identity in needed}
    main_id = next(identity for identity in roots if packages[identity]["name"] == SHIPPED[0])
    subject = components.pop(main_id)
    del subject["scope"]
    reference = {identity: entry["bom-ref"] for identity, entry in components.items()} | {main_id: subject["bom-ref"]}

    def depends(identity):
        others = {reference[row["pkg"]] for row in nodes[identity]["deps"] if row["pkg"] in reference}
        return {"ref": reference[identity], "dependsOn": sorted(others)}

    ordered = sorted(components.values(), key=lambda entry: entry["bom-ref"])
    when = datetime.datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), datetime.UTC)
    bom = {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(ordered)).urn,
        "version": 1,
        "metadata": {"timestamp": when.strftime("%Y-%m-%dT%H:%M:%SZ"), "component": subject},
        "components": ordered,
        "dependencies": sorted((depends(identity) for identity in needed), key=lambda row: row["ref"]),
    }
    print(json.dumps(bom, indent=2, ensure_ascii=False))


main()
