import subprocess
import sys

HEAVY = ["torch", "scipy.stats", "sklearn"]


def test_figures_and_laws_import_no_library_that_takes_a_second():
    code = (
        "import importlib, pkgutil, sys, analysis\n"
        "for module in pkgutil.walk_packages(analysis.__path__, 'analysis.'):\n"
        "    if not module.name.startswith('analysis.notebooks'):\n"  # executed with packages for development
        "        importlib.import_module(module.name)\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
