"""The broker's client: no retries, TLS, credentials, a Redis of its own (docs/broker.md, rows 10, 11)."""

from __future__ import annotations

import ssl
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import dramatiq
import pytest
import redis
import trustme
from dramatiq import Message
from dramatiq.errors import ConnectionClosed, QueueNotFound

from actors.broker.queue_admin import depths
from actors.broker.redis_client import connect, refuse_shared
from engine.errors import OperatorError, ServiceUnreachable

rig = SimpleNamespace(**run_path(str(Path(__file__).parents[3] / "stock" / "rig.py")))
valkey, another_valkey = rig.valkey, rig.another_valkey


def message(number=0, queue="lane"):
    return Message(queue_name=queue, actor_name="note", args=(number,), kwargs={}, options={})


def test_a_script_whose_answer_is_lost_runs_once(valkey):
    """Row 10: `RedisBroker(host=)` repeats the script, which enqueues the message twice."""
    proxy = rig.Proxy(valkey.port)
    broker = rig.hardened(f"redis://127.0.0.1:{proxy.port}/0")
    broker.enqueue(message())  # the script is now loaded
    proxy.cut_next_answer.set()
    with pytest.raises(ConnectionClosed):
        broker.enqueue(message())
    assert valkey.client.llen("tidegate:lane") == 2
    assert broker.enqueue(message()), "the next call has a new connection"
    broker.close()
    proxy.close()


def test_every_way_to_connect_has_timeouts_and_no_retries():
    """Row 10, for each scheme; building a client does not connect."""
    for url in ("redis://127.0.0.1:1/0", "rediss://user:secret@127.0.0.1:1/2", "unix:///tmp/none.sock"):
        client = connect(url)
        connection = client.connection_pool.make_connection()
        assert connection.retry.get_retries() == 0
        assert connection.socket_timeout == 5.0
        assert connection.health_check_interval == 15


def test_tls_and_credentials_work_and_wrong_ones_are_refused(another_valkey, tmp_path):
    """A given Redis may require TLS, a user and a password."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = another_valkey()
    server.client.execute_command("ACL", "SETUSER", "tide", "on", ">s3cret", "~*", "&*", "+@all")
    server.client.execute_command("ACL", "SETUSER", "default", "off")
    proxy = rig.Proxy(server.port, context)
    broker = rig.hardened(f"rediss://tide:s3cret@127.0.0.1:{proxy.port}/0", ca_certs=str(tmp_path / "ca.pem"))
    broker.enqueue(message())
    assert depths(broker)[0].ready == 1
    wrong_password = connect(f"rediss://tide:wrong@127.0.0.1:{proxy.port}/0", ca_certs=str(tmp_path / "ca.pem"))
    with pytest.raises(redis.AuthenticationError):
        wrong_password.ping()
    unknown_authority = connect(f"rediss://tide:s3cret@127.0.0.1:{proxy.port}/0")
    with pytest.raises(redis.ConnectionError, match="certificate verify failed"):
        unknown_authority.ping()
    for client in (wrong_password, unknown_authority):
        client.close()
    broker.close()
    proxy.close()


def test_an_absent_redis_is_a_connection_error_with_a_remedy():
    """The error that a command shows has a remedy; Dramatiq sees an error that it knows."""
    broker = rig.hardened(f"redis://127.0.0.1:{rig.free_port()}/0")
    with pytest.raises(ConnectionClosed):
        broker.enqueue(message())
    with pytest.raises(ServiceUnreachable) as caught:
        depths(broker)
    assert "status" in caught.value.remedy
    broker.close()


def test_many_messages_go_out_in_one_call_and_all_of_them_run(valkey):
    """The messages are pipelined through the broker's own script; queue and message layout are Dramatiq's."""
    broker = rig.hardened(valkey.url)
    seen: set[int] = set()

    @dramatiq.actor(broker=broker, queue_name="lane", max_retries=0, time_limit=10_000)
    def note(number):
        seen.add(number)

    before = valkey.client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)
    sent = broker.enqueue_many(note.message(number) for number in range(2_500))
    assert len({each.options["redis_message_id"] for each in sent}) == 2_500
    calls = valkey.client.info("commandstats")["cmdstat_evalsha"]["calls"] - before
    assert 2_500 <= calls <= 2_502, "one each; the first in a process also asks for the size of Lua's stack"
    assert depths(broker)[0].ready == 2_500
    with pytest.raises(QueueNotFound):
        broker.enqueue_many([note.message(1), message(queue="lame")])
    assert depths(broker)[0].ready == 2_500, "a refused call sends nothing"
    with rig.running(broker, rig.Fleet(threads=4, prefetch=100)):
        rig.wait_for(lambda: len(seen) == 2_500, what="all messages")


def test_the_broker_refuses_to_share_a_redis_with_the_cache(valkey, another_valkey):
    """Row 11: two addresses or databases of one server are one server."""
    other = another_valkey()
    refuse_shared(valkey.client, other.client)
    same = redis.Redis(host="localhost", port=valkey.port, db=7)
    with pytest.raises(OperatorError, match="same Redis server"):
        refuse_shared(valkey.client, same)
    same.close()


def test_maintenance_is_quick_on_a_redis_of_its_own(valkey, another_valkey):
    """Row 11: maintenance reads all keys, so a million cache keys must live elsewhere."""
    cache = another_valkey("--enable-debug-command", "yes")
    cache.client.execute_command("DEBUG", "POPULATE", 200_000)
    broker = rig.hardened(valkey.url)
    valkey.client.zadd("tidegate:__heartbeats__", {"a-dead-process": 1})
    valkey.client.config_set("slowlog-log-slower-than", 10_000)  # microseconds
    broker.quiet_until = 0.0
    assert broker.do_fetch("lane", 1) == []
    assert valkey.client.zscore("tidegate:__heartbeats__", "a-dead-process") is None, "maintenance ran"
    assert not [entry for entry in valkey.client.slowlog_get() if b"EVALSHA" in entry["command"].upper()]
    broker.close()
