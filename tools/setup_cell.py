# Set-up, the same in every chapter. Where the book's package is here already, as after `make book`, it does nothing.
# Elsewhere, as on Colab, it installs the package, in about a minute and without a restart.
import importlib
import os
import subprocess
import sys
from importlib.metadata import distributions

VERSION, REPOSITORY = "0.1.0", "https://github.com/seeing-ahead/seeing-ahead"
try:
    import pixelrl
except ImportError:
    pixelrl = None
if getattr(pixelrl, "__version__", None) != VERSION:
    source = os.environ.get("PIXELRL_SOURCE", f"git+{REPOSITORY}@v{VERSION}")
    print(f"installing {source}")
    # What the notebook may have loaded already stays as it is: pip is asked for the very version that is here.
    loaded = "torch numpy scipy pandas matplotlib pillow opencv-python protobuf ipython ipywidgets".split()
    kept = {d.name: f"{d.name}=={d.version}" for d in reversed([*distributions()]) if str(d.name).lower() in loaded}
    for command in ["pip", "install", "--quiet", "--no-compile", source, *kept.values()], ["pixelrl", "prepare"]:
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    sys.modules.pop("pixelrl", None)
    importlib.invalidate_caches()
    import pixelrl
torch = importlib.import_module("torch")
device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
preset = os.environ.get("PIXELRL_PRESET", "default")
print(f"pixelrl {pixelrl.__version__}, torch {torch.__version__} on {device}, preset {preset}")
