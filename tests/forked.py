"""Python that starts in a moment: scripts and kernels are forked from one process that has imported the libraries.

A new interpreter spends many seconds on importing torch, SciPy and others. What is forked still executes its own
imports and those of this project's modules, only that the modules of the libraries are already there. It has its
own working directory, environment, arguments, input and output, as if it had just been started. Signals are not passed
on; it is killed if the program that stands for it is killed. Warnings that libraries show when they are imported, and
variables that they read then, need a real interpreter.
"""

import json
import subprocess
import sys

# Reads orders from a socket: a folder, environment and arguments, with three descriptors for input, output and errors.
# A keeper is forked for each, and the script from it, so that this process always waits for the next order; the keeper
# reports the exit status. All end with the process that started this one, which holds the other end of standard input.
SERVER = """
import atexit, gc, json, os, runpy, select, signal, socket, sys, threading, traceback
import accelerate, ipykernel.ipkernel, ipykernel.zmqshell, IPython, matplotlib.pyplot, pandas, torch
import pytorch_pretrained_bert, scipy.optimize, scipy.stats, sklearn.feature_extraction.text, sklearn.linear_model
import sklearn.metrics, sklearn.model_selection, sklearn.pipeline
import torch._dynamo  # the first optimizer would do it, which takes seconds, too

def keep(child, connection):
    '''Wait for a child, and report its status; kill its family if nobody waits for that any more.'''
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if select.select([connection], [], [], 0.02)[0]:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return
    connection.sendall(str(os.waitstatus_to_exitcode(ended[1])).encode())

listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("ready", flush=True)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers leave no zombies
gc.freeze()  # collections in children pass over the libraries' objects, or they would copy their memory
while True:
    if listener not in select.select([listener, 0], [], [])[0]:
        sys.exit()
    connection, _ = listener.accept()
    if os.fork() == 0:
        break
    connection.close()
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
_, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
order = json.loads(connection.makefile().readline())
if child := os.fork():
    for descriptor in descriptors:
        os.close(descriptor)
    keep(child, connection)
    os._exit(0)
os.setsid()
listener.close(), connection.close()
for number, descriptor in enumerate(descriptors):
    os.dup2(descriptor, number), os.close(descriptor)
os.chdir(order["folder"])
os.environ.clear(), os.environ.update(order["environment"])
if "MPLBACKEND" in os.environ:
    matplotlib.rcParams["backend"] = os.environ["MPLBACKEND"]
for name in ("tqdm.auto", "tqdm.autonotebook"):  # imported, they look whether they are in a notebook
    sys.modules.pop(name, None)
sys.argv, status = order["arguments"], 0
try:
    if sys.argv[0] == "-m":
        sys.argv, sys.path[0] = sys.argv[1:], os.getcwd()
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
        runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    if isinstance(end.code, str):
        print(end.code, file=sys.stderr)
    status = 1 if isinstance(end.code, str) else end.code or 0
except BaseException:
    traceback.print_exc()
    status = 1
threading._shutdown(), atexit._run_exitfuncs()
sys.stdout.flush(), sys.stderr.flush()
os._exit(status)  # to free each object of the libraries would take half a second
"""
# Stands for Python: sends an order, and ends as what is forked ends.
CLIENT = """
import json, os, signal, socket, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # from a kernel's manager, before it shuts the kernel down
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
socket.send_fds(connection, [b"."], [0, 1, 2])
order = {"arguments": sys.argv[2:], "folder": os.getcwd(), "environment": dict(os.environ)}
connection.sendall(json.dumps(order).encode() + b"\\n")
status = int(connection.recv(10))
if status < 0:
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


class ForkServer:
    """The process that is forked, and two stands-in that use it, while it lives.

    Attributes
    ----------
    python : list of strings, the beginning of a command, as a replacement for [sys.executable]
    jupyter_path : folder; with it as JUPYTER_PATH in the environment, the kernels of notebooks are forked
    """

    def __init__(self, folder):
        command = [sys.executable, "-c", SERVER, str(folder / "socket")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"ready\n"
        (folder / "client.py").write_text(CLIENT)
        self.python = [sys.executable, "-I", "-S", str(folder / "client.py"), str(folder / "socket")]
        self.jupyter_path = folder / "jupyter"
        (self.jupyter_path / "kernels/python3").mkdir(parents=True)
        launcher = ["-m", "ipykernel_launcher", "-f", "{connection_file}"]
        kernel = {"argv": [*self.python, *launcher], "display_name": "Python 3 (ipykernel)", "language": "python"}
        kernel["env"] = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}  # as a kernel sets it
        (self.jupyter_path / "kernels/python3/kernel.json").write_text(json.dumps(kernel))

    def close(self):
        """End the process."""
        with self.process:
            self.process.stdin.close()
