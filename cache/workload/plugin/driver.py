# Reads requests as JSON lines and calls init of the plugin with them.
import sys

here = sys.path.pop(0)  # the plugin's modules must not stand in for those of this file
import json
import os
import traceback
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader

sys.path.insert(0, here)


def take():
    """Returns standard input; what the plugin reads of it from here on is nothing."""
    lines = os.fdopen(os.dup(0), "r", encoding="utf-8", newline="\n")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return lines


def given(lines):
    """Returns the arguments of init: the first line are its args, the others requests."""
    with lines:
        args = json.loads(next(lines))
        requests = []
        for line in lines:
            delay, uri, size, method, duration, client = json.loads(line)
            requests.append({  # JSON does not tell 1.0 from 1; equal texts are kept once
                "delay": float(delay), "uri": sys.intern(uri), "size": size,
                "method": sys.intern(method), "duration": float(duration), "client": sys.intern(client),
            })
    return (requests,) if args is None else (requests, args)


def load(path):
    """Imports the plugin, whatever its file's name ends in."""
    sys.argv = [path]
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    name = os.path.splitext(os.path.basename(path))[0]
    loader = SourceFileLoader(name, path)
    module = module_from_spec(spec_from_loader(name, loader))
    sys.modules[name] = module
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    if not callable(getattr(module, "init", None)):
        sys.exit("%s has no function init(requests) or init(requests, args)" % path)
    return module.init


def run(path):
    lines = take()
    try:
        init = load(path)  # before all is read: what is wrong in it is known at once
        init(*given(lines))
    except Exception as e:
        # From where the plugin begins: how it was called is nothing to its writer.
        at = e.__traceback__
        while at and os.path.abspath(at.tb_frame.f_code.co_filename) != os.path.abspath(path):
            at = at.tb_next
        traceback.print_exception(type(e), e, at)
        sys.exit(1)


run(sys.argv[1])
