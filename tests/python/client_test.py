"""A client in another language, generated from `proto/`, against a running server.

    python client_test.py http://127.0.0.1:7331      (or unix:/path/to.sock)

Submits a workload, watches it, is cut in the middle, goes on behind its cursor with a new connection, and checks that
nothing was left out and nothing came twice. Then it cancels another workload. Prints a short transcript; the exit code
is 0 only if everything was as it should be. Needs no model.
"""

import importlib
import importlib.resources
import pathlib
import sys
import tempfile
import uuid

import grpc
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"
DEADLINE_S = 60
FACTS_BEFORE_THE_CUT = 9
COUNT_TO = 8

PROGRAM = """
flow counting(name: str) -> str {
    for each number in [1, 2, 3, 4, 5, 6, 7, 8] {
        emit(number)
        sleep(30ms)
    }
    return "#{name} is done"
}

flow patient() -> str {
    sleep(1h)
    return "awake"
}
"""


def generated(into):
    """The messages and stubs of the public surface, made from the `.proto` files."""
    files = sorted(str(path) for path in (PROTO / "nexa" / "v1").glob("*.proto"))
    include = str(importlib.resources.files("grpc_tools") / "_proto")
    args = ["protoc", f"-I{PROTO}", f"-I{include}", f"--python_out={into}", f"--grpc_python_out={into}", *files]
    if protoc.main(args) != 0:
        sys.exit("the stubs could not be generated")
    sys.path.insert(0, into)
    names = ["workload_pb2", "workload_pb2_grpc", "common_pb2", "history_pb2", "history_pb2_grpc"]
    return [importlib.import_module(f"nexa.v1.{name}") for name in names]


def check(holds, what):
    if not holds:
        sys.exit(f"FAILED: {what}")


class Server:
    """One connection."""

    def __init__(self, address, workload_grpc, history_grpc):
        # For a Unix socket this library would send the path as the authority, which is no valid one and is refused.
        options = [("grpc.default_authority", "localhost")] if address.startswith("unix:") else []
        self.channel = grpc.insecure_channel(address.removeprefix("http://"), options=options)
        self.workloads = workload_grpc.WorkloadServiceStub(self.channel)
        self.history = history_grpc.HistoryServiceStub(self.channel)

    def close(self):
        self.channel.close()


def told(event):
    """One line a fact."""
    kind = event.WhichOneof("event")
    detail = {"value_emitted": lambda: event.value_emitted.value_json}.get(kind, lambda: "")()
    return f"{event.agent_name or 'workload':10} {kind} {detail}".rstrip()


def facts(stream, most=None):
    """The facts of a watch, until its end or until there are `most`."""
    found = []
    for response in stream:
        if response.frame.WhichOneof("frame") == "event":
            found.append(response.frame.event)
            if len(found) == most:
                break
    return found


def check_streams(events):
    """Within each stream the versions are 1, 2, 3, …: no gap and no repeat, whatever the server says elsewhere."""
    seen = {}
    for event in events:
        stream = event.agent_id or event.workload_id
        seen[stream] = seen.get(stream, 0) + 1
        check(event.version == seen[stream], f"{stream}: fact {event.version} came as number {seen[stream]}")


def main(address):
    with tempfile.TemporaryDirectory() as into:
        workload_pb, workload_grpc, common_pb, history_pb, history_grpc = generated(into)
        connect = lambda: Server(address, workload_grpc, history_grpc)
        counted(connect, workload_pb, common_pb)
        cancelled(connect, workload_pb, common_pb)
        refused(connect, workload_pb)
        searched(connect, history_pb)
    print("ok")


def submission(workload_pb, common_pb, entry, input_json):
    return workload_pb.WorkloadServiceSubmitRequest(
        request_id=str(uuid.uuid4()),
        source=common_pb.Source(name="python_client.nx", text=PROGRAM),
        entry=entry,
        input_json=input_json,
        name=f"python {entry}",
    )


def counted(connect, workload_pb, common_pb):
    """Submit, watch, cut, resume."""
    server = connect()
    request = submission(workload_pb, common_pb, "counting", '{"name":"the count"}')
    submitted = server.workloads.Submit(request, timeout=DEADLINE_S)
    again = server.workloads.Submit(request, timeout=DEADLINE_S)
    check(again == submitted, "the same request id must give the same answer")
    print(f"submitted {submitted.workload_id}, twice, one workload")

    watch = workload_pb.WorkloadServiceWatchRequest(workload_id=submitted.workload_id, from_start=True, chunks=True)
    before = facts(server.workloads.Watch(watch, timeout=DEADLINE_S), FACTS_BEFORE_THE_CUT)
    check(len(before) == FACTS_BEFORE_THE_CUT, "the workload ended before the cut")
    server.close()
    for event in before:
        print(f"  {told(event)}")
    print(f"  ---- cut after {len(before)} facts ----")

    server = connect()
    resume = workload_pb.WorkloadServiceWatchRequest(
        workload_id=submitted.workload_id, cursor=before[-1].cursor, chunks=True
    )
    after = facts(server.workloads.Watch(resume, timeout=DEADLINE_S))
    for event in after:
        print(f"  {told(event)}")

    pieced = before + after
    check_streams(pieced)
    whole = facts(server.workloads.Watch(watch, timeout=DEADLINE_S))
    check(pieced == whole, f"{len(pieced)} facts in two parts, {len(whole)} in one: they must be the same")
    check(len({event.cursor for event in pieced}) == len(pieced), "a cursor came twice")
    values = [event.value_emitted.value_json for event in pieced if event.WhichOneof("event") == "value_emitted"]
    check(values == [str(number) for number in range(1, COUNT_TO + 1)], f"emitted {values}")
    ended = pieced[-1].workload_ended
    check(ended.state == common_pb.WORKLOAD_STATE_SUCCEEDED, f"ended as {ended.state}")
    check(ended.outcome.value_json == '"the count is done"', f"ended with {ended.outcome}")
    print(f"resumed: {len(before)} + {len(after)} facts, no gap, no repeat")
    server.close()


def cancelled(connect, workload_pb, common_pb):
    """Cancel a workload that would sleep for an hour."""
    server = connect()
    submitted = server.workloads.Submit(submission(workload_pb, common_pb, "patient", ""), timeout=DEADLINE_S)
    watch = workload_pb.WorkloadServiceWatchRequest(workload_id=submitted.workload_id, from_start=True)
    stream = server.workloads.Watch(watch, timeout=DEADLINE_S)
    before = []
    while not before or before[-1].WhichOneof("event") != "timer_set":
        before += facts(stream, 1)
    cancel = workload_pb.WorkloadServiceCancelRequest(
        request_id=str(uuid.uuid4()), workload_id=submitted.workload_id, reason="the test is over"
    )
    server.workloads.Cancel(cancel, timeout=DEADLINE_S)
    server.workloads.Cancel(cancel, timeout=DEADLINE_S)
    events = before + facts(stream)
    check_streams(events)
    state = events[-1].workload_ended.state
    check(state == common_pb.WORKLOAD_STATE_CANCELLED, f"ended as {state}")
    get = workload_pb.WorkloadServiceGetRequest(workload_id=submitted.workload_id)
    got = server.workloads.Get(get, timeout=DEADLINE_S).workload
    check(got.state == common_pb.WORKLOAD_STATE_CANCELLED and got.cancel_requested, f"got {got}")
    print(f"cancelled {submitted.workload_id}: {got.outcome.failure.message}")
    server.close()


def refused(connect, workload_pb):
    """What is wrong is refused with a reason that a program can read."""
    server = connect()
    request_id = str(uuid.uuid4())
    for request, code, reason in [
        (workload_pb.WorkloadServiceGetRequest(workload_id="w-" + "0" * 32), grpc.StatusCode.NOT_FOUND, "NOT_FOUND"),
        (workload_pb.WorkloadServiceGetRequest(workload_id="nonsense"), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
    ]:
        try:
            server.workloads.Get(request, timeout=DEADLINE_S)
            sys.exit(f"FAILED: {request} was not refused")
        except grpc.RpcError as error:
            check(error.code() == code, f"{error.code()} in place of {code}")
            details = dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
            check(reason.encode() in details and b"nexa.dev" in details, f"no reason in {details!r}")
            print(f"refused: {error.details()} ({reason})")
    nothing = workload_pb.WorkloadServiceSubmitRequest(request_id=request_id)
    try:
        server.workloads.Submit(nothing, timeout=DEADLINE_S)
        sys.exit("FAILED: an empty submission was accepted")
    except grpc.RpcError as error:
        check(error.code() == grpc.StatusCode.INVALID_ARGUMENT, f"{error.code()}")
    server.close()


def searched(connect, history_pb):
    """The cancel is in the history."""
    server = connect()
    request = history_pb.HistoryServiceSearchRequest(query="test is over")
    for _ in range(100):
        answer = server.history.Search(request, timeout=DEADLINE_S)
        if answer.hits:
            break
    check(answer.hits, "the history does not know of the cancel")
    print(f"found in history: {answer.hits[0].snippet}")
    server.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
