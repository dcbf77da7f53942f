"""Games with the protocol, with signals and with the worker's own runtime: nobody else notices."""

from __future__ import annotations

import threading
import time

import pytest

from cloister.errors import CloisterError, FunctionError, LimitError

from .conftest import Prison

pytestmark = pytest.mark.timeout(180)

# The host's socket, by what it is, and frames on it past everything in between.
RAW = """
import msgspec, stat
def host():
    for number in range(3, 64):
        try:
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                return number
        except OSError:
            pass
def raw(payload):
    sent = 0
    while sent < len(payload):
        sent += os.write(host(), payload[sent:sent + 65536])
def frame(*members):
    encoded = msgspec.msgpack.encode(members)
    return struct.pack(">I", len(encoded)) + encoded
def number():
    frame = sys._getframe()
    while not isinstance(frame.f_locals.get("number"), int):
        frame = frame.f_back
    return frame.f_locals["number"]
def announced(payload):
    return struct.pack(">I", len(payload)) + payload
"""


def lines(body: str) -> str:
    return RAW.strip() + "\n" + body


@pytest.mark.parametrize(
    "body",
    [
        "os.close(host())",
        "raw(os.urandom(1 << 16))",
        "raw(struct.pack('>I', 0xffffffff))",
        "raw(struct.pack('>I', 1 << 25) + bytes(100)); os._exit(0)",
        "raw(announced(b''))",
        "raw(announced(b'\\x92\\xa8returned' + b'\\x91' * 1_000_000 + b'\\xc0'))",
        "raw(announced(b'\\x92\\xa8returned\\xdd\\x00\\x80\\x00\\x00' + b'\\x90' * (1 << 23)))",
        "raw(announced(b'\\x92\\xa8returned\\xdd\\x00\\x80\\x00\\x00' + b'\\x80' * (1 << 23)))",
        "raw(announced(b'\\x92\\xa8returned\\xdd\\xff\\xff\\xff\\xff'))",
        "raw(announced(b'\\x92\\xa8returned\\xdf\\xff\\xff\\xff\\xff'))",
        "raw(announced(b'\\x92\\xa8returned\\xc7\\xff\\x05' + b'x' * 255))",
        "raw(frame('load', 'os:system', {}))",
        "raw(frame('call', {}))",
        "raw(frame('loaded', b'{}', []))",
        "raw(frame('returned'))",
        "raw(frame('returned', 1, 2, 3))",
        "raw(frame('returned', 'of old'))",
        "raw(frame('returned', number() + 1, 'next'))",
        "raw(frame('returned', number() - 1, 'last'))",
        "raw(frame('returned', 0, 'none'))",
        "raw(frame('returned', -number(), 'less'))",
        "raw(frame('returned', float(number()), 'about'))",
        "raw(frame('returned', str(number()), 'named'))",
        "raw(frame('returned', True, 'so'))",
        "raw(frame('failed', number() ^ 1, 'ValueError', ''))",
        "raw(frame('returned', number(), 'own') + b'\\x00')",
        "raw(frame('returned', number(), 'own') + frame('logged', 'more'))",
        "raw(b''.join(frame('returned', n, f'stored {n}') for n in range(50)))",
        "raw(frame('ask', 'nobody', 'GET', '/', {}, {}, b'') * 300)\nwhile True: os.read(host(), 1 << 16)",
        "while True: raw(frame('logged', 'x' * 100))",
        "while True: raw(frame('progressed', 1))",
        "import faulthandler\nctypes.string_at(0)",
        "ctypes.memset(id(type), 0, 64)\nreturn repr(type)",
    ],
)
def test_whoever_breaks_the_protocol_ends_alone(prison: Prison, body: str) -> None:
    with pytest.raises(CloisterError):
        prison.run(lines(body))


@pytest.mark.parametrize(
    "body",
    [
        "raw(b'\\x00\\x00')\nwhile True: pass",
        "raw(struct.pack('>I', 1 << 24))\nwhile True: pass",
        "raw(struct.pack('>I', 1 << 24))\nwhile True: raw(b'x')",
        "signal.signal(signal.SIGSEGV, signal.SIG_IGN)\nwhile True: time.sleep(1)",
    ],
    ids=["half a length", "no payload", "a byte at a time", "asleep"],
)
def test_half_a_frame_ends_at_the_deadline_while_others_are_served(prison: Prison, body: str) -> None:
    ended: list[CloisterError] = []

    def attack() -> None:
        try:
            prison.run(lines(body))
        except CloisterError as error:
            ended.append(error)

    prison.serves_others()
    attacking = threading.Thread(target=attack)
    attacking.start()
    served = 0
    while attacking.is_alive():
        assert prison.serves_others()
        served += 1
        time.sleep(0.05)
    assert served > 5
    assert [type(error) for error in ended] == [LimitError]


def test_an_answer_given_twice_ends_the_worker_and_reaches_no_other_call(prison: Prison) -> None:
    body = lines("""
state["called"] = state.get("called", 0) + 1
if value == "twice":
    raw(frame('returned', number(), value + '!') * 2)
return f"{value} {state['called']}"
""")
    for _ in range(3):
        with pytest.raises(FunctionError):
            prison.run(body, "twice")
        # A worker of its own: nothing is left of the one before.
        assert prison.run(body, "once") == "once 1"


@pytest.mark.parametrize(
    "late",
    [
        "raw(frame('returned', old, 'second'))",
        "raw(frame('returned', old + 1, 'second'))",
        "raw(frame('failed', old, 'LookupError', ''))",
        "raw(b''.join(frame('returned', n, 'second') for n in range(99)))",
    ],
    ids=["the last number", "the next number", "an error", "by counting"],
)
def test_an_answer_that_was_held_back_does_not_reach_the_next_call(prison: Prison, late: str) -> None:
    """It is sent when the next call has begun, before that call could be looked at."""
    body = lines(f"""
import select
import cloister_host.functions.frames as frames
if value == "lie in wait":
    old, read = number(), frames.Channel.receive
    def receive(channel, **options):
        frames.Channel.receive = read
        select.select([host()], [], [])
        {late}
        return read(channel, **options)
    frames.Channel.receive = receive
return value
""")
    assert prison.run(body, "lie in wait") == "lie in wait"
    with pytest.raises(FunctionError, match="protocol"):
        prison.run(body, "next")
    assert prison.run(body, "after that") == "after that"


def test_an_early_answer_is_an_answer(prison: Prison) -> None:
    """Whoever knows the number is the function itself, and what it says is its answer."""
    body = lines("raw(frame('returned', number(), value + '!'))\nwhile True: time.sleep(1)")
    assert prison.run(body, "one") == "one!"
    # It is still at its first call, and hears of no other.
    with pytest.raises(LimitError):
        prison.run(body, "two")
    assert prison.run(body, "three") == "three!"


SPIES = {
    "channel": """
import cloister_host.functions.frames as frames
real = frames.Channel.receive
frames.Channel.receive = lambda self, **k: note(real(self, **k))
""",
    "msgspec": """
import msgspec
real = msgspec.convert
msgspec.convert = lambda value, *a, **k: real(note(value), *a, **k)
""",
    "settrace": "sys.settrace(lambda frame, *a: note(dict(frame.f_locals)) and None)",
    "setprofile": "sys.setprofile(lambda frame, *a: note(dict(frame.f_locals)) and None)",
    "audit hook": "sys.addaudithook(lambda *a: note(a) and None)",
    "collector": "gc.callbacks.append(lambda *a: note([x for x in gc.get_objects()[-99:]]))",
    "import": "sys.meta_path.insert(0, type('F', (), {'find_spec': lambda *a: note(a) and None})())",
    "function": "f.__wrapped__ = None\nglobals()['f'] = lambda **k: note(k)",
    "atexit": "import atexit\natexit.register(lambda: note(gc.get_objects()))",
    "finaliser": "import weakref\nstate['a'] = set('a')\nweakref.finalize(state['a'], note, 'end')",
    "signal": "signal.signal(signal.SIGCONT, lambda number, frame: note(dict(frame.f_locals)))",
    "builtins": "import builtins\nreal = builtins.len\nbuiltins.len = lambda x: real(note(x))",
}


@pytest.mark.parametrize("spy", SPIES.values(), ids=SPIES)
def test_a_spy_in_the_runtime_hears_nothing_of_other_principals(prison: Prison, spy: str) -> None:
    indented = "\n".join(f"    {line}" for line in spy.strip().splitlines())
    body = f"""
seen = state.setdefault("seen", [])
def note(thing):
    seen.append(thing)
    return thing
if value == "install":
{indented}
    return "installed"
if value == "report":
    return str("plain-4711" in repr(seen[-2000:]))
return "called"
"""
    assert prison.run(body, "install", principal="spy") == "installed"
    assert prison.run(body, "plain-4711", principal="victim") == "called"
    assert prison.run(body, "plain-4711", principal="p", tenant="another") == "called"
    # What it says is of its own making; it may also have broken itself.
    try:
        said = prison.run(body, "report", principal="spy")
    except CloisterError:
        return
    assert said in {"False", "report"}


HOSTILE = {
    "reduce": "class X(str):\n    def __reduce__(self): return (os.system, ('id',))\nreturn X('x')",
    "class": "class X:\n    __class__ = str\n    def __str__(self): return 'x'\nreturn X()",
    "length": "class X(list):\n    def __len__(self): return 1 << 60\nreturn X()",
    "endless": "class X(dict):\n    def items(self):\n        while True: yield ('a', 1)\nreturn X(a=1)",
    "itself": "x = []\nx.append(x)\nreturn x",
    "deep": "x = []\nfor _ in range(1 << 20): x = [x]\nreturn x",
    "number": "return 1 << 4096",
    "surrogate": "return '\\ud800'",
    "nan": "return float('nan')",
    "huge": "return ['x' * 1000] * 100_000",
    "lists": "return [[]] * (1 << 22)",
    "generator": "return (x for x in iter(int, 1))",
    "dataclass": "import dataclasses\n@dataclasses.dataclass\nclass X:\n    x: object\n"
    "    def __getattribute__(self, n): return self\nreturn X(1)",
    "struct": "import msgspec\nclass X(msgspec.Struct):\n    x: object\ny = X(None)\ny.x = y\nreturn y",
    "enum": "import enum\nclass X(enum.Enum):\n    a = object()\nreturn X.a",
    "name": "raise type('x' * (1 << 24), (Exception,), {})",
    "naming": "class M(type):\n    @property\n    def __name__(self): raise SystemExit\n"
    "class E(Exception, metaclass=M): pass\nraise E",
    "message": "raise ValueError('x' * (1 << 25))",
    "string": "class E(Exception):\n    def __str__(self): raise self\n    __repr__ = __str__\nraise E",
    "chain": "error = None\nfor _ in range(100_000):\n    e = ValueError()\n    e.__cause__ = error\n"
    "    error = e\nraise error",
    "group": "raise BaseExceptionGroup('x', [ValueError('x' * 100)] * 10_000)",
    "exit": "sys.exit('x' * 1000)",
    "interrupt": "raise KeyboardInterrupt",
    "generator exit": "raise GeneratorExit",
    "stop": "raise StopIteration",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_hostile_results_and_errors_are_ordinary_failures(prison: Prison, body: str) -> None:
    """Each raises an error of ours, or gives plain data that the output class refuses afterwards."""
    failure = ""
    try:
        returned = prison.run(body)
    except CloisterError as error:
        returned, failure = None, repr(error)
    assert len(failure) < 1000
    assert "xxxx" not in failure
    assert type(returned) in {str, list, dict, int, float, type(None)}


@pytest.mark.parametrize(
    "action",
    [
        "os.kill(-1, 9)",
        "os.kill(0, 9)",
        "os.kill(1, 9)",
        "os.kill(os.getpid(), signal.SIGSTOP)",
        "signal.raise_signal(signal.SIGSTOP)",
        "signal.pthread_kill(threading.get_ident(), signal.SIGKILL)",
        "signal.alarm(1)",
        "signal.setitimer(signal.ITIMER_REAL, 0.01)",
        "os.nice(-20)",
        "os.setpriority(os.PRIO_USER, 0, -20)",
        "os.sched_setaffinity(0, {0})",
        "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99))",
    ],
)
def test_it_signals_and_schedules_nobody(prison: Prison, action: str) -> None:
    # alarm(2) has no way to say that it failed but a number of seconds.
    refused = {"EPERM", "EACCES", f"gave {2**32 - 1}"}
    assert prison.run(f"return attempt(lambda: {action})") in refused


def test_standard_streams_carry_nothing_to_another_worker(prison: Prison) -> None:
    """An open file is a place to leave a mark: position and flags are shared by all who hold it."""
    body = """
import fcntl
before = fcntl.fcntl(0, fcntl.F_GETFL)
fcntl.fcntl(0, fcntl.F_SETFL, before | os.O_APPEND | os.O_NONBLOCK)
return str(bool(before & (os.O_APPEND | os.O_NONBLOCK)))
"""
    assert [prison.run(body, principal=name) for name in "ab"] == ["False", "False"]


def test_output_without_end_costs_nobody_anything(prison: Prison) -> None:
    with pytest.raises(LimitError):
        prison.run("while True: print('x' * (1 << 20)); sys.stderr.write('y' * (1 << 20))")


@pytest.mark.parametrize(
    "body",
    [
        "while True: pass",
        "kept = []\nwhile True:\n    try: kept.append(bytearray(1 << 16))\n    except MemoryError: pass",
        "while True: open('x', 'wb').write(bytes(1 << 20))",
        "while True: os.close(os.open('.', os.O_RDONLY))",
        "while True:\n    try: syscall(57)\n    except Exception: pass",
    ],
    ids=["loop", "memory", "disk", "descriptors", "forks"],
)
def test_others_are_served_while_it_goes_on(prison: Prison, body: str) -> None:
    ended: list[type] = []

    def attack() -> None:
        try:
            prison.run(body)
        except CloisterError as error:
            ended.append(type(error))

    attacks = [threading.Thread(target=attack) for _ in range(4)]
    for attacking in attacks:
        attacking.start()
    served = 0
    while any(attacking.is_alive() for attacking in attacks):
        assert prison.serves_others()
        served += 1
    assert served > 20
    assert len(ended) == 4
    assert set(ended) <= {LimitError, FunctionError}
