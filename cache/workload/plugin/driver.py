# Reads requests as JSON lines and calls init of the plugin with them.
import importlib.util
import json
import os
import sys

path, args = sys.argv[1], sys.argv[2]
# What the plugin reads from standard input is nothing: requests are there.
lines = os.fdopen(os.dup(0), "r", encoding="utf-8")
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
requests = [json.loads(line) for line in lines]
lines.close()
for r in requests:  # JSON does not tell 1.0 from 1
    r["delay"], r["duration"] = float(r["delay"]), float(r["duration"])

sys.argv = [path]
sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
name = os.path.splitext(os.path.basename(path))[0]
spec = importlib.util.spec_from_file_location(name, path)
module = importlib.util.module_from_spec(spec)
sys.modules[name] = module
spec.loader.exec_module(module)
if not callable(getattr(module, "init", None)):
    sys.exit("%s has no function init(requests) or init(requests, args)" % path)
if args == "null":
    module.init(requests)
else:
    module.init(requests, json.loads(args))
