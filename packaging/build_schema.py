"""Build hook: generates the modules of our .proto files, druncschema's and druncd's own.

They go into the package's own directory and are put on the import path by a .pth
file, behind site-packages: where the upstream druncschema is installed, its files
stay as they are.
"""

from pathlib import Path
from typing import Any

import grpc_tools
from grpc_tools import protoc
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGES = {
    "druncschema": "Messages and services of the drunc run control.",
    "druncd_inspection": "druncd's own service, beside those of the drunc run control.",
}
WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"


def generate(source: Path, target: Path) -> None:
    """Generate the modules, their type stubs and the gRPC stubs."""
    protos = []
    for name, purpose in PACKAGES.items():
        package = target / name
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text(f'"""{purpose}"""\n')
        (package / "py.typed").touch()
        protos += sorted(str(path) for path in (source / name).glob("*.proto"))
    outputs = [f"--{kind}_out={target}" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main(["protoc", f"-I{source}", f"-I{WELL_KNOWN}", *outputs, *protos]) != 0:
        raise RuntimeError("protoc could not compile the schema")


class SchemaHook(BuildHookInterface[Any]):
    """Called by hatchling for each wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generate the modules into a scratch directory and add them to the wheel."""
        target = Path(self.directory) / "schema"
        generate(Path(self.root) / "src", target)
        pth = target / "druncschema.pth"
        pth.write_text("druncd/_schema\n")
        build_data["force_include"] |= {
            **{str(target / name): f"druncd/_schema/{name}" for name in PACKAGES},
            str(pth): "druncd-schema.pth",
        }
