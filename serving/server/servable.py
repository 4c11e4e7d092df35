"""One version of a model: a SavedModel, TF1 or TF2, in sessions of its own.

A session, as TensorFlow Serving has it, rather than `tf.saved_model.load`: it reads TF1 and TF2
SavedModels alike, loads in half the time, is quicker by call (measured on a network of 9 ms a
photo: 8.4 to 9.0 ms against 9.2 to 9.5) and, closed, gives back all it took.

Where batches alone keep all cores busy there are two sessions. A request that has the servable to
itself runs in the first, at once and with all threads for each operation. Those that meet others
run behind the batching op of the second, where one thread does all of a batch: several would gain
it little and take it from the next one, and handing operations from thread to thread costs 2 % of
the photos a second (32 clients, ResNet50 at 96 px, two cores).
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2

from serving.server import metrics
from serving.server.batching import BatchedSignature, Batching, must_not_be_repeated
from serving.server.errors import ServingError, from_tensorflow, invalid_argument
from serving.server.tensors import type_name

# Outputs can be asked for in any combination, and each is compiled: the newest so many are kept.
_KEPT_CALLABLES = 64


class Servable:
    """A loaded version.

    Attributes:
        name: the model's name.
        version: the version's number.
        signatures: by name, as the SavedModel has them.
        divided: whether a request that meets others runs in another session than a lone one.
    """

    def __init__(
        self,
        name: str,
        version: int,
        folder: str,
        *,
        tags: Sequence[str] = (tf.saved_model.SERVING,),
        batching: Batching | None = None,
        session_config: config_pb2.ConfigProto,
    ):
        """Loads the SavedModel in `folder`.

        Raises:
            ServingError: it can't be loaded; why.
        """
        self.name = name
        self.version = version
        self._requests = 0
        self._counting = threading.Lock()
        self._sessions: list[_Session] = []
        try:
            self._sessions.append(_Session(folder, tags, session_config))
            if crowd := _crowd_config(batching, session_config):
                self._sessions.append(_Session(folder, tags, crowd))
            self._lone, self._crowd = self._sessions[0], self._sessions[-1]
            self.divided = self._lone is not self._crowd
            self.signatures = self._lone.signatures
            self._batched: dict[str, BatchedSignature] = {}
            if batching:
                self._batched = {
                    key: BatchedSignature(
                        self._crowd.graph,
                        _names(signature.inputs),
                        _names(signature.outputs),
                        batching,
                        name,
                        key,
                    )
                    for key, signature in self.signatures.items()
                    if _can_be_batched(signature)
                }
        except BaseException:
            self.close()
            raise

    def run(
        self, signature_name: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
    ) -> list[np.ndarray]:
        """Runs a signature, in one batch with other requests where batching is on.

        Args:
            signature_name: one of `signatures`.
            inputs: all inputs of the signature.
            outputs: the outputs wanted.

        Returns:
            The outputs' values in the order asked for.

        Raises:
            ServingError: an input does not fit, or the graph failed.
        """
        signature = self.signatures[signature_name]
        feeds = {
            signature.inputs[alias].name: (signature.inputs[alias].dtype, inputs[alias])
            for alias in sorted(inputs)
        }
        _check_types(feeds)
        arrays = {name: array for name, (_, array) in feeds.items()}
        wanted = [signature.outputs[alias].name for alias in outputs]
        if (batched := self._batched.get(signature_name)) is None:
            return self.run_tensors(arrays, wanted)
        in_order = [arrays[name] for name in _names(signature.inputs)]
        count = batched.count(in_order)
        with self.request() as alone:
            if alone and self.divided and batched.in_one_batch(count):
                found = self.run_tensors(arrays, wanted)
                metrics.observe_batch(self.name, signature_name, count, 0, 0.0)
                return found
            call = self._crowd.callable(tuple(batched.feeds), tuple(batched.fetches))
            try:
                found = self._timed(lambda: batched.run(call, in_order, count))
            except tf.errors.OpError as error:
                if must_not_be_repeated(error):
                    raise from_tensorflow(error) from error
                return self.run_tensors(arrays, wanted)
        by_name = dict(zip(_names(signature.outputs), found, strict=True))
        return [by_name[name] for name in wanted]

    def run_tensors(
        self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]
    ) -> list[np.ndarray]:
        """Runs the graph from tensors to tensors, both by name.

        Raises:
            ServingError: the graph failed.
        """
        order = sorted(set(fetches))
        call = self._lone.callable(tuple(feeds), tuple(order))
        try:
            found = self._timed(lambda: call(*feeds.values()))
        except tf.errors.OpError as error:
            raise from_tensorflow(error) from error
        return [found[order.index(name)] for name in fetches]

    @contextlib.contextmanager
    def request(self) -> Iterator[bool]:
        """A request that is being answered; gives whether it is the only one."""
        with self._counting:
            alone = not self._requests
            self._requests += 1
        try:
            yield alone
        finally:
            with self._counting:
                self._requests -= 1

    def close(self) -> None:
        """Gives the memory back; nothing may run any more."""
        for session in self._sessions:
            session.close()

    def _timed(self, run: Callable[[], list[np.ndarray]]) -> list[np.ndarray]:
        started = time.perf_counter()
        found = run()
        metrics.observe_runtime(self.name, time.perf_counter() - started)
        return found


class _Session:
    """A SavedModel loaded into a graph and a session of its own.

    Attributes:
        graph: what was loaded.
        signatures: by name, as the SavedModel has them.
        callable: from names to feed and names to fetch, what runs them.
    """

    def __init__(self, folder: str, tags: Sequence[str], config: config_pb2.ConfigProto):
        self.graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=self.graph, config=config)
        self.callable = functools.lru_cache(_KEPT_CALLABLES)(self._make_callable)
        try:
            self.signatures = dict(_load(self._session, folder, tags).signature_def)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.callable.cache_clear()
        self._session.close()

    def _make_callable(self, feeds: tuple[str, ...], fetches: tuple[str, ...]) -> Any:
        # Not make_callable, which goes by way of run(): that is slower, and casts what it is fed.
        return self._session._make_callable_from_options(
            config_pb2.CallableOptions(feed=feeds, fetch=fetches)
        )


def _crowd_config(
    batching: Batching | None, config: config_pb2.ConfigProto
) -> config_pb2.ConfigProto | None:
    """The second session's, or None: the first one's threads are as good for batches.

    They are where fewer batches run at once than there are cores, where a GPU does the work, and
    where somebody has said how many threads to take.
    """
    cores = len(os.sched_getaffinity(0))
    if (
        batching is None
        or not 1 < cores <= batching.num_batch_threads
        or config.intra_op_parallelism_threads
        or config.inter_op_parallelism_threads
        or tf.config.list_physical_devices("GPU")
    ):
        return None
    crowd = config_pb2.ConfigProto()
    crowd.CopyFrom(config)
    crowd.intra_op_parallelism_threads = 1
    crowd.inter_op_parallelism_threads = -1  # none: in the caller's, here the batching op's
    return crowd


def _load(
    session: tf.compat.v1.Session, folder: str, tags: Sequence[str]
) -> meta_graph_pb2.MetaGraphDef:
    try:
        with session.graph.as_default():
            return tf.compat.v1.saved_model.loader.load(session, list(tags), folder)
    except tf.errors.OpError as error:
        raise from_tensorflow(error) from error
    except OSError as error:
        if any(os.path.exists(f"{folder}/saved_model.{kind}") for kind in ("pb", "pbtxt")):
            raise ServingError(grpc.StatusCode.DATA_LOSS, str(error)) from error
        raise ServingError(
            grpc.StatusCode.NOT_FOUND,
            f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {folder}",
        ) from error
    except ValueError as error:
        if "not a valid checkpoint" not in str(error):
            raise
        raise ServingError(
            grpc.StatusCode.NOT_FOUND,
            "Unsuccessful TensorSliceReader constructor: Failed to find any matching files for "
            f"{folder}/variables/variables",
        ) from error
    except RuntimeError as error:
        if "MetaGraphDef" not in str(error):
            raise
        raise ServingError(
            grpc.StatusCode.NOT_FOUND,
            f"Could not find meta graph def matching supplied tags: {{ {' '.join(tags)} }}. To "
            "inspect available tag-sets in the SavedModel, please use the SavedModel CLI: "
            "`saved_model_cli`",
        ) from error


def _names(tensors: Mapping[str, meta_graph_pb2.TensorInfo]) -> list[str]:
    return [tensors[alias].name for alias in sorted(tensors)]


def _can_be_batched(signature: meta_graph_pb2.SignatureDef) -> bool:
    """Dense tensors in and out; the signature that runs a TF2 model's initialisers has none."""
    tensors = [*signature.inputs.values(), *signature.outputs.values()]
    return bool(signature.inputs and signature.outputs) and all(info.name for info in tensors)


def _check_types(feeds: Mapping[str, tuple[int, np.ndarray]]) -> None:
    for place, (kind, array) in enumerate(feeds.values()):
        given = tf.dtypes.as_dtype(array.dtype).as_datatype_enum
        if given != kind:
            raise invalid_argument(
                f"Expects arg[{place}] to be {type_name(kind)} but {type_name(given)} is provided"
            )
