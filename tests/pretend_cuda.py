"""A GPU that is not there: numbers on the CPU, under the rules of CUDA.

A tensor "on cuda:0" is a wrapper around a CPU tensor that holds its numbers. Its C++ device is
CUDA, so dispatch, AutocastCUDA and the autograd engine's device thread are torch's own, and every
call below autograd comes by :class:`Rules`, which computes it on the CPU and

* raises what CUDA raises where tensors of both devices meet, or a generator is of the other one;
* notes with the line of latlas whatever makes the host wait for the device: numbers, shapes or
  decisions that are read from it, copies to the host, and copies from pageable memory;
* notes where float64 is used, which MPS lacks;
* records what is captured in a CUDA graph, refuses there what CUDA refuses, and replays it.

What it cannot show: speed, memory, CUDA's own kernels and their rounding. It relies on internals of
torch, and a process that has run a backward pass before has no thread for the device, so it is for
processes of its own (:mod:`pretend_check`). It needs g++.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

DEVICE, aten = torch.device("cuda", 0), torch.ops.aten
PACKAGE = str(Path(__file__).parent.parent / "latlas") + "/"

#: a device guard, from which autograd takes its threads, and hooks that say that CUDA is there
SOURCE = """
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
using c10::Device; using c10::DeviceIndex; using c10::DeviceType; using c10::Stream;
static const Device DEVICE(DeviceType::CUDA, 0);
static const Stream STREAM(Stream::DEFAULT, DEVICE);
struct OneDevice final : c10::impl::DeviceGuardImplInterface {
  DeviceType type() const override { return DEVICE.type(); }
  Device getDevice() const override { return DEVICE; }
  Device exchangeDevice(Device) const override { return DEVICE; }
  void setDevice(Device) const override {}
  void uncheckedSetDevice(Device) const noexcept override {}
  Stream getStream(Device) const override { return STREAM; }
  Stream getDefaultStream(Device) const override { return STREAM; }
  Stream getNewStream(Device, int) const override { return STREAM; }
  Stream exchangeStream(Stream) const override { return STREAM; }
  DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const Stream&, const DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const DeviceIndex) const noexcept override {}
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override {}
  void synchronizeEvent(void*) const override {}
  void synchronizeDevice(const DeviceIndex) const override {}
  void recordDataPtrOnStream(const c10::DataPtr&, const Stream&) const override {}
};
struct Present final : at::CUDAHooksInterface {
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  DeviceIndex current_device() const override { return 0; }
};
extern "C" void attach() {
  static OneDevice guard; static Present hooks;
  static c10::impl::DeviceGuardImplRegistrar registrar(DeviceType::CUDA, &guard);
  // the hooks without CUDA exist already; they get the table of functions of ours
  *(void**)&at::detail::getCUDAHooks() = *(void**)&hooks;
}
"""


def compile_guard(folder: Path) -> Path:
    """The library of :data:`SOURCE`, compiled into the folder unless it is there (15 s)."""
    tag = hashlib.sha256((SOURCE + torch.__version__).encode()).hexdigest()[:16]
    library, root = folder / f"guard-{tag}.so", Path(torch.__file__).parent
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = library.with_suffix(f".{hash(library) & 0xffff}.part")
        subprocess.run(
            ["g++", "-x", "c++", "-", "-std=c++20", "-O0", "-shared", "-fPIC", f"-I{root}/include",
             f"-L{root}/lib", "-lc10", "-ltorch_cpu", "-o", str(part)],
            input=SOURCE, text=True, check=True, capture_output=True)
        part.replace(library)
    return library


class OnDevice(torch.Tensor):
    """A tensor on cuda:0, whose numbers are in ``numbers``."""

    numbers: torch.Tensor

    @staticmethod
    def __new__(cls, real: torch.Tensor) -> OnDevice:
        wrapper: Any = torch.Tensor._make_wrapper_subclass(
            cls, real.shape, strides=real.stride(), storage_offset=real.storage_offset(),
            dtype=real.dtype, device=DEVICE)
        wrapper.numbers = real
        return wrapper

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return Rules.current.call(func, args, kwargs or {})

    def __repr__(self, *args: Any, **kwargs: Any) -> str:
        return f"OnDevice({tuple(self.shape)}, {self.dtype})"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.dim() == 0 else object.__str__(self)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy: use Tensor.cpu() first")

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            twin = OnDevice(self.numbers.clone()).requires_grad_(self.requires_grad)
            if getattr(self, "_is_param", False):
                twin._is_param = True
            memo[id(self)] = twin
        return memo[id(self)]


# ------------------------------------------------------------------------------ generators
_TorchGenerator = torch.Generator
#: the device's generators by the address that dispatch knows them by
_generators: dict[int, torch.Generator] = {}


class _AnyGenerator(type):
    def __instancecheck__(cls, thing: object) -> bool:
        return isinstance(thing, _TorchGenerator)

    def __call__(cls, device: Any = "cpu") -> Any:
        generator = _DeviceGenerator() if torch.device(device).type == "cuda" else _TorchGenerator()
        if isinstance(generator, _DeviceGenerator):
            _generators[generator._cdata] = generator
        return generator


class _DeviceGenerator(_TorchGenerator):
    """Draws what the CPU's draws of the same seed."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return DEVICE


class Generator(metaclass=_AnyGenerator):
    """What stands for ``torch.Generator``."""


# ------------------------------------------------------------------------------ rules
#: calls that give the host what only the device knows: a number, a shape, an error
WAITS = {aten._local_scalar_dense.default: "a number is read", aten.equal.default: "equal",
         aten.nonzero.default: "nonzero", aten.masked_select.default: "masked_select",
         aten._unique2.default: "unique", aten.unique_dim.default: "unique",
         aten.multinomial.default: "multinomial", aten.bincount.default: "bincount",
         aten.repeat_interleave.Tensor: "repeat_interleave",
         aten._linalg_check_errors.default: "an error of linalg",
         aten._linalg_eigh.default: "eigh", aten._linalg_svd.default: "svd"}
COPIES = {aten._to_copy.default, aten.copy_.default}
INDEXED = {aten.index.Tensor, aten._unsafe_index.Tensor, aten.index_put.default,
           aten.index_put_.default, aten._index_put_impl_.default}
ADAM = {aten._fused_adamw_.default, aten._fused_adamw_.tensor_lr}
#: of these not even a tensor of one number may be on the other device
JOINS = {aten.cat.default, aten.stack.default, aten.mm.default, aten.bmm.default}


class Log:
    """What was noted, each with its place. ``hot``: we are in a step."""

    def __init__(self) -> None:
        self.hot = False
        self.waits: Counter[tuple[str, str]] = Counter()  # of steps
        self.float64: Counter[str] = Counter()
        self.launches = 0  # calls of steps that are no views
        self.replays = 0


class Rules(TorchDispatchMode):
    """Computes every call on the CPU and keeps to the module's rules."""

    current: Rules

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.pinned: dict[int, torch.Tensor] = {}  # by the address of their memory
        self.graph: Graph | None = None  # that is being captured

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.call(func, args, kwargs or {})

    def call(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if func is torch.ops.prim.device.default:
            return DEVICE if isinstance(args[0], OnDevice) else args[0].device
        flat, spec = tree_flatten((args, kwargs))
        tensors = [t for t in flat if isinstance(t, torch.Tensor)]
        ours = [t for t in tensors if isinstance(t, OnDevice)]
        pin, target = kwargs.get("pin_memory"), kwargs.get("device")
        kind = "cuda" if target is None and ours else torch.device(target or "cpu").type
        drawn_by = [v._cdata for v in flat if isinstance(v, _TorchGenerator)]
        if kind == "cpu" and not ours:
            if any(cdata in _generators for cdata in drawn_by):
                raise RuntimeError("Expected a 'cpu' device type for generator but found 'cuda'")
            result = func(*args, **{k: v for k, v in kwargs.items() if k != "pin_memory"})
            return self.pin(result) if pin else result
        if any(cdata not in _generators for cdata in drawn_by):
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        if ours or func in COPIES:
            self.check(func, args, kwargs, tensors)
        if any(t.dtype == torch.float64 for t in ours) or (
                kind == "cuda" and kwargs.get("dtype") == torch.float64):
            self.log.float64[place()] += 1
        self.log.launches += self.log.hot and not is_view(func)
        real = [t.numbers if isinstance(t, OnDevice) else torch.device("cpu") if isinstance(
            t, torch.device) else t for t in flat]
        args, kwargs = tree_unflatten(real, spec)
        kwargs = {k: v for k, v in kwargs.items() if k != "pin_memory" and not (
            k == "generator" and v is None)}
        if self.graph is not None:
            self.graph.before(func, args, drawn_by)
        result = func(*args, **kwargs)
        if self.graph is not None:
            self.graph.calls.append((func, args, kwargs, result))
        if (func is aten._to_copy.default and kind == "cpu") or (
                func is aten.copy_.default and not isinstance(tensors[0], OnDevice)):
            return result
        wrapped = {id(t.numbers): t for t in ours}
        host = {id(t) for t in tensors if not isinstance(t, OnDevice)}
        return tree_map_only(torch.Tensor, lambda t: t if id(t) in host else wrapped.get(id(t))
                             if id(t) in wrapped else OnDevice(t), result)

    def check(self, func: Any, args: Any, kwargs: dict[str, Any], tensors: list[Any]) -> None:
        """Raise what CUDA raises, and note what waits."""
        if func in COPIES:
            return self.copied(func, args, kwargs)
        others = [t for t in tensors if not isinstance(t, OnDevice)]
        if func in INDEXED:
            indices = [t for t in args[1] if t is not None]
            self.indexed(func, args, indices)
            others = [t for t in others if all(t is not index for index in indices)]
        for t in others:
            if t.dim() or func in JOINS:
                raise RuntimeError(
                    "Expected all tensors to be on the same device, but found at least two devices,"
                    f" cuda:0 and cpu! ({func}, {tuple(t.shape)} on the cpu)")
        if func in WAITS:
            self.wait(WAITS[func])
        if func in ADAM:
            for p, *rest in zip(*args[:4], strict=True):
                if any(t.dtype != p.dtype or t.shape != p.shape or any(
                        n > 1 and s != s_p for n, s, s_p in zip(
                            p.shape, t.stride(), p.stride(), strict=True)) for t in rest):
                    raise RuntimeError("params, grads, exp_avgs, and exp_avg_sqs must have same "
                                       "dtype, device, and layout")

    def copied(self, func: Any, args: Any, kwargs: dict[str, Any]) -> None:
        into = func is aten.copy_.default
        source = args[1] if into else args[0]
        target = args[0].device if into else torch.device(kwargs.get("device") or source.device)
        if target.type == "cuda" and not isinstance(source, OnDevice):
            later = kwargs.get("non_blocking") or (into and len(args) > 2 and args[2])
            if not (later and source.untyped_storage().data_ptr() in self.pinned):
                self.wait("copy from pageable memory")
        elif target.type == "cpu" and isinstance(source, OnDevice):
            self.wait("copy to the host")

    def indexed(self, func: Any, args: Any, indices: list[torch.Tensor]) -> None:
        one_value = func not in (aten.index.Tensor, aten._unsafe_index.Tensor) and (
            len(indices) == 1 and args[2].numel() == 1)  # that is a masked_fill
        if not one_value and any(t.dtype in (torch.bool, torch.uint8) for t in indices):
            self.wait("index by a mask")
        if any(not isinstance(t, OnDevice) for t in indices):
            self.wait("index from pageable memory")

    def wait(self, what: str) -> None:
        if self.graph is not None:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing "
                               f"({what} at {place()})")
        if self.log.hot:
            self.log.waits[what, place()] += 1

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        self.pinned[tensor.untyped_storage().data_ptr()] = tensor  # kept, so that no other gets it
        return tensor


def is_view(func: Any) -> bool:
    return any(r.alias_info is not None and not r.alias_info.is_write
               for r in func._schema.returns)


def place() -> str:
    """The innermost line of latlas, ``file:function``; what autograd calls has none."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(PACKAGE):
            return f"{name[len(PACKAGE):]}:{frame.f_code.co_qualname}"
        frame = frame.f_back
    return "(outside)"


class Graph:
    """What stands for ``torch.cuda.CUDAGraph``: the calls of a capture, made again with the same
    tensors; whatever was a number of Python's then is the same number for ever."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.changed: list[tuple[torch.Tensor, torch.Tensor]] = []  # and what was there before
        self.generators: list[Any] = [*torch.cuda.default_generators]

    def register_generator_state(self, generator: Any) -> None:
        self.generators.append(_generators[generator._cdata])

    def before(self, func: Any, args: Any, drawn_by: list[int]) -> None:
        """Note what a call is about to change."""
        if not set(drawn_by) <= {g._cdata for g in self.generators}:
            raise RuntimeError("a generator that is not registered draws in a graph")
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                for t in value if isinstance(value, (list, tuple)) else [value]:
                    self.changed.append((t, t.clone()))

    def replay(self) -> None:
        Rules.current.log.replays += 1
        with torch.no_grad(), _disable_current_modes():
            for func, args, kwargs, before in self.calls:
                now = func(*args, **kwargs)
                if is_view(func) or any(r.alias_info for r in func._schema.returns):
                    continue  # of memory that is there
                for old, new in zip(*(tree_flatten(v)[0] for v in (before, now)), strict=True):
                    if isinstance(old, torch.Tensor) and old is not new:
                        old.copy_(new)


@contextlib.contextmanager
def capture(graph: Graph, *args: Any, **kwargs: Any) -> Iterator[None]:
    """What stands for ``torch.cuda.graph``. CUDA computes nothing meanwhile: what was changed here
    is put back, and only registered generators may draw."""
    rules = Rules.current
    before = {generator: generator.get_state() for generator in graph.generators}
    rules.graph = graph
    try:
        yield
    finally:
        rules.graph = None
        for generator, state in before.items():
            generator.set_state(state)
        for tensor, value in reversed(graph.changed):
            tensor.copy_(value)


class Event:
    """What stands for ``torch.cuda.Event``."""

    def record(self, *args: Any) -> None: ...

    def synchronize(self) -> None: ...


@contextlib.contextmanager
def pretend_cuda(folder: Path) -> Iterator[Log]:
    """Inside, torch has one CUDA device. ``folder`` keeps the compiled guard."""
    ctypes.CDLL(str(compile_guard(folder))).attach()
    Rules.current = rules = Rules()

    def pin(tensor: torch.Tensor, *args: Any) -> torch.Tensor:
        return rules.pin(tensor.clone())

    def giving(value: Any) -> Any:  # one function each: torch's compiler keeps a table of them
        return lambda *args, **kwargs: value

    replaced = {
        "torch.cuda._lazy_init": giving(None), "torch.cuda.is_available": giving(True),
        "torch.cuda.is_bf16_supported": giving(True), "torch.cuda.device_count": giving(1),
        "torch.cuda.current_device": giving(0), "torch.cuda.set_device": giving(None),
        "torch.cuda.synchronize": giving(None), "torch.cuda.manual_seed_all": giving(None),
        "torch.cuda.empty_cache": giving(None),
        "torch.cuda.mem_get_info": giving((1 << 33, 1 << 33)),
        "torch.cuda.default_generators": (Generator("cuda"),),
        "torch.cuda.CUDAGraph": Graph, "torch.cuda.graph": capture, "torch.cuda.Event": Event,
        "torch.cuda.amp.common.amp_definitely_not_available": giving(False),
        "torch.Tensor.pin_memory": pin, "torch.Generator": Generator,
        # composite calls would reach the mode whole
        "torch.inference_mode": lambda mode=True: torch.no_grad() if mode else torch.enable_grad()}
    with contextlib.ExitStack() as stack:
        for name, value in replaced.items():
            stack.enter_context(mock.patch(name, value))
        # modules that move get new parameters, and torch.tensor(…, device=…) comes by as a copy
        for switch in (torch.__future__.set_overwrite_module_params_on_conversion,
                       torch._C._set_only_lift_cpu_tensors):
            switch(True)
            stack.callback(switch, False)
        stack.enter_context(rules)
        yield rules.log


@contextlib.contextmanager
def steps_watched(log: Log) -> Iterator[None]:
    """What ``Batches.at`` and ``Trainer.step`` do is a step's."""
    from latlas.data.batches import Batches
    from latlas.engine.trainer import Trainer

    def watched(function: Any) -> Any:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            before, log.hot = log.hot, True
            try:
                return function(*args, **kwargs)
            finally:
                log.hot = before
        return wrapper

    with contextlib.ExitStack() as stack:
        for cls, name in ((Batches, "at"), (Trainer, "step")):
            stack.enter_context(mock.patch.object(cls, name, watched(getattr(cls, name))))
        yield
