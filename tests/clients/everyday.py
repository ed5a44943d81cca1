"""Everyday work with python-etcd, against the server at argv[1].

With `members` as argv[2] also what asks who is in the cluster. Ends with "done"; an assertion that
fails ends it with its traceback.
"""
import sys
import threading
import time
import urllib.parse

import etcd

URL = urllib.parse.urlsplit(sys.argv[1])


def connect(**more):
    return etcd.Client(host=URL.hostname, port=URL.port, read_timeout=20, **more)


def fails_with(error, work):
    try:
        work()
    except error as raised:
        return raised
    raise AssertionError("no %s" % error.__name__)


def keys(client):
    first = client.write("/py/message", "Hello")
    assert (first.action, first.value, first.newKey) == ("set", "Hello", True)
    assert client.read("/py/message").value == "Hello"
    assert "/py/message" in client and "/py/nothing" not in client
    second = client.write("/py/message", "Grüße & = %\n+")
    assert second._prev_node.value == "Hello"
    assert client.get("/py/message").value == "Grüße & = %\n+"
    assert second.modifiedIndex == first.modifiedIndex + 1
    missing = fails_with(etcd.EtcdKeyNotFound, lambda: client.read("/py/nothing"))
    assert missing.payload["errorCode"] == 100, missing.payload
    result = client.read("/py/message")
    result.value = "updated"
    assert client.update(result).action == "compareAndSwap"
    assert client.delete("/py/message").action == "delete"


def compare(client):
    client.write("/py/cas", "1")
    assert client.test_and_set("/py/cas", "2", "1").value == "2"
    fails_with(etcd.EtcdCompareFailed, lambda: client.test_and_set("/py/cas", "3", "1"))
    index = client.read("/py/cas").modifiedIndex
    assert client.write("/py/cas", "3", prevIndex=index).value == "3"
    fails_with(etcd.EtcdAlreadyExist, lambda: client.write("/py/cas", "4", prevExist=False))
    fails_with(etcd.EtcdKeyNotFound, lambda: client.write("/py/new", "4", prevExist=True))
    fails_with(etcd.EtcdCompareFailed, lambda: client.delete("/py/cas", prevValue="1"))
    assert client.delete("/py/cas", prevValue="3").action == "compareAndDelete"


def directories(client):
    client.write("/py/dir", None, dir=True)
    fails_with(etcd.EtcdNotFile, lambda: client.write("/py/dir", None, dir=True))
    for name in ("a", "b", "deep/c"):
        client.write("/py/dir/" + name, name)
    leaves = {leaf.key: leaf.value for leaf in client.read("/py/dir", recursive=True).leaves}
    assert leaves == {"/py/dir/a": "a", "/py/dir/b": "b", "/py/dir/deep/c": "deep/c"}, leaves
    children = [child.key for child in client.read("/py/dir", sorted=True).children]
    assert children == ["/py/dir/a", "/py/dir/b", "/py/dir/deep"], children
    fails_with(etcd.EtcdNotFile, lambda: client.delete("/py/dir"))
    fails_with(etcd.EtcdDirNotEmpty, lambda: client.delete("/py/dir", dir=True))
    queued = [client.write("/py/queue", str(number), append=True).key for number in range(3)]
    assert queued == sorted(queued)
    values = [child.value for child in client.read("/py/queue", sorted=True).children]
    assert values == ["0", "1", "2"], values
    client.delete("/py/dir", recursive=True)
    client.delete("/py/queue", recursive=True)


def lives(client):
    written = client.write("/py/short", "life", ttl=1)
    assert written.ttl == 1 and written.expiration
    client.write("/py/beat", "heart", ttl=1)
    end = time.monotonic() + 20
    while "/py/short" in client:
        client.refresh("/py/beat", ttl=5)
        assert time.monotonic() < end, "the key does not die"
        time.sleep(0.05)
    assert client.read("/py/beat").value == "heart"
    assert client.write("/py/beat", "heart", ttl="").ttl is None
    expired = client.read("/py/short", wait=True, waitIndex=written.modifiedIndex + 1)
    assert expired.action == "expire", expired


def watches(client):
    index = client.write("/py/watched", "0").modifiedIndex
    seen = []

    def follow():
        for event in connect().eternal_watch("/py/watch", index=index + 1, recursive=True):
            seen.append((event.action, event.key, event.value))
            if event.action == "delete":
                return

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    for number in range(20):
        client.write("/py/watch/key", str(number))
    client.delete("/py/watch/key")
    follower.join(20)
    expected = [("set", "/py/watch/key", str(number)) for number in range(20)]
    assert seen == expected + [("delete", "/py/watch/key", None)], seen
    fails_with(etcd.EtcdWatchTimedOut, lambda: client.watch("/py/never", timeout=0.3))


def locks(client):
    lock, rival = etcd.Lock(client, "lock"), etcd.Lock(connect(), "lock")
    assert lock.acquire(blocking=True, lock_ttl=30) and lock.is_acquired
    assert not rival.acquire(blocking=False)
    lock.release()
    assert rival.acquire(blocking=True, lock_ttl=30, timeout=10)
    rival.release()


def members(client):
    assert sys.argv[1] in client.machines, client.machines
    found = list(client.members.values())
    assert len(found) == 1 and sys.argv[1] in found[0]["clientURLs"], found
    assert client.leader["id"] == found[0]["id"]
    assert client.version and client.cluster_version
    again = connect(allow_reconnect=True)
    again.write("/py/again", "1")
    assert client.read("/py/again").value == "1"


def main():
    client = connect()
    for work in (keys, compare, directories, lives, watches, locks):
        work(client)
    if sys.argv[2:] == ["members"]:
        members(client)
    print("done")


main()
