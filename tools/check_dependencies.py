#!/usr/bin/env python3
"""Checks who includes whom: core <- backends <- plugins, core <- models <- tools; vendors and heavy headers apart.

    tools/check_dependencies.py [ROOT]

Prints one line for each #include that breaks a rule, with file, line and the rule; exit status 1 if there is one.
"""

import pathlib
import re
import sys

PUBLIC = "core/include"
# A folder may include itself and these. Beyond its own folder core offers its public headers alone.
MAY_INCLUDE = {
    "core": [],
    "backends": [PUBLIC],
    "plugins": [PUBLIC, "backends"],
    "models": [PUBLIC],
    "tools": [PUBLIC, "models"],
}
SUFFIXES = {".h", ".cpp", ".cu", ".cuh"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
CONDITION = re.compile(r"^\s*#\s*(?:if|elif|ifdef|ifndef)\b.*\b(USE_\w+|__CUDACC__|__CUDA_ARCH__)")

VENDOR = re.compile(r"^(cuda|cublas|cudnn|cuda_\w+|cooperative_groups|nccl|mpi|nvtx3/.*|nvToolsExt)\b.*|"
                    r"^(ATen|c10|torch/csrc)/(native/)?(cuda|cudnn|mps|hip)/|^(cute|cutlass)/")
VENDOR_HOME = re.compile(r"^(backends|plugins)/(\w+_sm\d+\w*|cp_\w+)/|_sm\d+\.(h|cpp|cu|cuh)$")
# Header -> files that may include it.
CONFINED = [
    (re.compile(r"^torch/(torch|all|nn|optim|extension)(\.h|/)"), re.compile(r"^$"),
     "<torch/torch.h> costs half a minute for each file; include narrow ATen headers"),
    (re.compile(r"^(spdlog|fmt)/"), re.compile(r"^core/log\.cpp$"),
     "spdlog's fmt and LibTorch's must not meet; use attnmux/log.h"),
]
# Slow to compile: in .cpp files, and in headers that .cpp files alone include.
HEAVY = re.compile(r"^(nlohmann/(?!json_fwd)|toml\+\+/|boost/)")


def area(path):
    return PUBLIC if path.startswith(PUBLIC + "/") else path.split("/")[0]


def resolve(root, source, name):
    """Repository path of a quoted include; None where no file of the tree has that name."""
    for folder in (source.parent, root, root / PUBLIC, root / "backends"):
        candidate = folder / name
        if candidate.is_file():
            return candidate.resolve().relative_to(root).as_posix()
    return f"{PUBLIC}/{name}" if name == "attnmux/interface_hash.h" else None  # made by the build


def included_by_headers(root, files):
    """Every file that some header includes."""
    found = set()
    for source in files:
        if source.suffix == ".h":
            includes = map(INCLUDE.match, source.read_text(encoding="utf-8").splitlines())
            found.update(resolve(root, source, include.group(2)) for include in includes if include)
    return found


def problems_of_include(root, source, path, quote, name, shared_headers):
    home = path.split("/")[0]
    if VENDOR.search(name) and not VENDOR_HOME.search(path):
        yield "a vendor's header belongs in backends/cp_*, or in files and folders named *_sm<arch>"
    for header, allowed, why in CONFINED:
        if header.search(name) and not allowed.search(path):
            yield why
    if HEAVY.search(name) and (path.startswith(PUBLIC) or path in shared_headers):
        yield "only in .cpp files and in headers that no header includes"
    if home not in MAY_INCLUDE:
        return
    target = resolve(root, source, name)
    if target is None:
        if quote == '"':
            yield "no such file in the tree"
        return
    to = area(target)
    if to != home and not (home == "core" and to == PUBLIC) and to not in MAY_INCLUDE[home]:
        yield f"{home}/ may include {', '.join([home] + MAY_INCLUDE[home])}, not {to}/"


def problems_of_file(root, source, shared_headers):
    path = source.relative_to(root).as_posix()
    for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), 1):
        include = INCLUDE.match(line)
        if include:
            for why in problems_of_include(root, source, path, *include.groups(), shared_headers):
                yield f"{path}:{number}: {line.strip()}: {why}"
        condition = CONDITION.match(line)
        if condition and not VENDOR_HOME.search(path):
            yield f"{path}:{number}: {line.strip()}: code for a vendor belongs in a backend of its own"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent).resolve()
    files = [file for folder in [*MAY_INCLUDE, "tests"] for file in sorted((root / folder).rglob("*"))
             if file.suffix in SUFFIXES]
    shared_headers = included_by_headers(root, files)
    problems = [problem for file in files for problem in problems_of_file(root, file, shared_headers)]
    print("\n".join(problems) if problems else f"{len(files)} files keep the dependency rules")
    sys.exit(1 if problems or not files else 0)


if __name__ == "__main__":
    main()
