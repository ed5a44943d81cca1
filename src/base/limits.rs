//! Every bound of the daemon, with its reason. Full = the sender is told; nothing grows without
//! a bound. Units are the last word of each name.

/// Longest key in bytes. etcd has no limit; LMDB's is 1,982, so longer keys are stored under a
/// prefix and a hash (`store::row`), and something has to end the game.
pub const KEY_BYTES_MAX: usize = 16 * 1024;

/// Deepest path in segments: bounds the parents one write may create.
pub const KEY_DEPTH_MAX: usize = 128;

/// Largest value in bytes: etcd's default request limit (`--max-request-bytes`).
pub const VALUE_BYTES_MAX: usize = 1536 * 1024;

/// Largest request body in bytes: a value of the largest size, form-encoded in the common case.
pub const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Longest time to live: ten years. etcd overflows to "for ever" instead, in silence.
pub const TTL_SECONDS_MAX: u64 = 10 * 366 * 86_400;

/// Commands in one multi-operation request: etcd's `--max-txn-ops`.
pub const COMMANDS_PER_ENTRY_MAX: usize = 128;

/// Keys one turn of apply may touch before Raft gets to tick again; a recursive delete of a large
/// tree takes many turns.
pub const APPLY_KEYS_PER_TURN: usize = 1_000;

/// Keys one expiry entry may name; what is left waits for the next entry.
pub const EXPIRE_KEYS_PER_ENTRY: usize = 500;

/// Proposals remembered per origin for exactly-once: an older sequence has an unknown outcome.
pub const DEDUP_WINDOW: u64 = 1_024;

/// Revisions kept for watches and old reads whatever their age, unless bytes win.
pub const HISTORY_REVISIONS_MIN: u64 = 10_000;

/// Bytes of history above which the oldest revisions go, however few are left.
pub const HISTORY_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Revisions older than this go once there are `HISTORY_REVISIONS_MIN` younger ones.
pub const HISTORY_AGE_MS_MAX: u64 = 3_600_000;

/// Changes the watch hub keeps in memory; a cursor further behind reads the store's history.
pub const WATCH_RING_CHANGES_MAX: usize = 4_096;

/// Bytes the watch ring may hold.
pub const WATCH_RING_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Changes a watcher takes at once; the rest follows when these are written out.
pub const WATCH_BATCH_CHANGES_MAX: usize = 512;

/// Bytes of changes a watcher takes at once, but for the last one: what a client that does not
/// read its stream makes this process hold.
pub const WATCH_BATCH_BYTES_MAX: usize = 64 * 1024;

/// Records of history a watcher reads before others get their turn: about a millisecond.
pub const WATCH_SCAN_RECORDS_MAX: usize = 4_096;

/// Watchers of one member: each costs about half a kilobyte.
pub const WATCHERS_MAX: usize = 100_000;

/// Overlay bytes at which a checkpoint starts even under load.
pub const OVERLAY_BYTES_CHECKPOINT: usize = 32 * 1024 * 1024;

/// Overlay bytes at which proposals wait, when the frozen generation is still being written.
pub const OVERLAY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Longest time between checkpoints while there is something to write.
pub const CHECKPOINT_INTERVAL_MS: u64 = 1_000;

/// Quiet time after which a checkpoint starts early.
pub const CHECKPOINT_QUIET_MS: u64 = 100;

/// Dead records one checkpoint may remove after a compaction: bounds the length of its write.
pub const PURGE_RECORDS_PER_CHECKPOINT: usize = 50_000;

/// WAL segment length. Segments are zero-filled once and recycled, so an append writes in place
/// and one fdatasync flushes data only (measured: 9.6 k/s against 5.2 k/s for a growing file).
pub const WAL_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes of entries kept in memory for slow followers; who needs older ones gets a snapshot.
pub const LOG_CACHE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Entries kept in memory for slow followers (etcd's catch-up entries).
pub const LOG_CACHE_ENTRIES_MAX: usize = 5_000;

/// Bytes of one batch of proposals, which is one `MsgPropose` and at most one WAL frame.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Proposals of one batch.
pub const BATCH_PROPOSALS_MAX: usize = 1_024;

/// Proposals waiting in front of the core; more are refused with "too many requests".
pub const PROPOSALS_WAITING_MAX: usize = 16_384;

/// Bytes of proposals waiting in front of the core.
pub const PROPOSALS_WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Reads waiting for a ReadIndex round.
pub const READS_WAITING_MAX: usize = 65_536;

/// Uncommitted bytes in the Raft log above which proposals are dropped (etcd refuses by count).
pub const UNCOMMITTED_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Chunk of a snapshot stream.
pub const SNAPSHOT_CHUNK_BYTES: usize = 256 * 1024;

/// Time a proposal may take before its outcome is reported as unknown: etcd's request timeout of
/// 5 s and two election timeouts.
pub const REQUEST_TIMEOUT_MS: u64 = 7_000;

/// The slowest flush of the log, in microseconds, that a thread which serves clients may wait for.
pub const LENT_FLUSH_MICROS_MAX: u64 = 1_000;

/// One Raft tick.
pub const TICK_MS: u64 = 100;

/// Ticks of the shortest election timeout; the longest is twice that.
pub const ELECTION_TICKS: usize = 10;

/// A leader logs the cluster time this often while deadlines exist.
pub const CLOCK_INTERVAL_MS: u64 = 5_000;

/// What inherited deadlines are given, once, when a leader starts.
pub const LEADER_GRACE_MS: u64 = 15_000;

/// Time a health check may take to learn that it has no quorum: etcd's.
pub const HEALTH_TIMEOUT_MS: u64 = 1_000;

/// Request headers in bytes.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;

/// Time a client may take to send its first byte, and then the rest of a request's head.
pub const HEADER_TIMEOUT_MS: u64 = 10_000;

/// Connections of all client listeners together: ten thousand watchers, and those who write.
pub const CONNECTIONS_MAX: usize = 16_384;

/// Connections the kernel holds for a listener that is busy accepting others.
pub const LISTEN_BACKLOG: u32 = 1_024;

/// Pause after a failed accept, which is mostly a lack of file descriptors.
pub const ACCEPT_RETRY_MS: u64 = 100;

/// Time a connection may be kept without a request: pooled clients come back within minutes.
pub const CONNECTION_IDLE_MS: u64 = 300_000;

/// Requests at a time on one HTTP/2 connection.
pub const HTTP2_STREAMS_MAX: u32 = 1_000;

/// Time connections get to finish after SIGTERM.
pub const DRAIN_MS: u64 = 4_000;

/// Bytes a template may produce.
pub const RENDER_OUTPUT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// CPU time of one render in the worker child.
pub const RENDER_CPU_SECONDS_MAX: u64 = 2;

/// Output of a check or reload command that is kept.
pub const COMMAND_OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// Bytes a WAL segment is zero-filled ahead on its first use: a first start writes this much, not
/// a whole segment, and the flush that pays for growth comes once in a few thousand.
pub const WAL_FILL_BYTES: u64 = 4 * 1024 * 1024;

/// Released WAL segments kept for reuse: one for the next rotation and one more, so that a running
/// log has a reserve on a full disk. A start may still need room for a new file.
pub const WAL_SPARE_SEGMENTS_MAX: usize = 2;

/// Bytes of one WAL frame. Raft's window for one follower is 256 messages of 1 MiB; twice that
/// means a bug, not load.
pub const WAL_FRAME_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Bytes recovery reads from a WAL segment at a time, unless one frame is larger.
pub const WAL_READ_BYTES: usize = 256 * 1024;

/// Bytes of entries recovery copies in one frame, so that a restart needs no second copy of a
/// whole segment in memory.
pub const WAL_COPY_BYTES: usize = 4 * 1024 * 1024;

/// Connections of one `althing bench` run: each costs a descriptor here and one in the server.
pub const BENCH_CONNECTIONS_MAX: usize = 4_096;

/// Longest single run of `althing bench`, in seconds.
pub const BENCH_SECONDS_MAX: u64 = 3_600;

/// Rounds of `althing bench compare`: more say nothing new.
pub const BENCH_ROUNDS_MAX: u32 = 100;

/// Longest response the benchmark's client keeps: a value of the largest size, twice (`prevNode`),
/// with room for escapes.
pub const BENCH_RESPONSE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Time a benchmark waits for a server that no longer answers, in seconds; longer than
/// `REQUEST_TIMEOUT_MS`, so that a server which says so itself is heard.
pub const BENCH_STALL_SECONDS: u64 = 10;

/// Errors in a row after which a connection of the benchmark gives up.
pub const BENCH_ERRORS_IN_A_ROW_MAX: u32 = 100;

/// Time a server under test has to serve after its start, and to end after SIGTERM, in seconds;
/// etcd takes about 5 s with a million keys.
pub const BENCH_START_SECONDS: u64 = 60;

/// Earlier boots remembered per origin: a late proposal of one of them is refused. One that comes
/// after this many restarts of its origin would pass for a new boot.
pub const DEDUP_EARLIER_BOOTS_MAX: usize = 8;

/// Places at which the machine knows how many bytes of history lie behind: bounds a checkpoint's
/// meta row, and keeps the estimate within a few per cent.
pub const HISTORY_MARKS_MAX: usize = 64;

/// Bytes of history between two of those places, at the least.
pub const HISTORY_MARK_BYTES_MIN: u64 = 64 * 1024;

/// A ReadIndex round without an answer is asked again after this long: raft drops a round without
/// a word when the leader changes or a message is lost. Five heartbeats.
pub const READ_RETRY_MS: u64 = 500;

/// A forwarded request without an outcome is sent again after this long: one election timeout.
pub const FORWARD_RETRY_MS: u64 = 1_000;

/// Bytes of entries in one append message.
pub const APPEND_BYTES_MAX: u64 = 1024 * 1024;

/// Append messages on their way to one follower.
pub const APPENDS_IN_FLIGHT_MAX: usize = 256;

/// Bytes of committed entries Raft hands out at once.
pub const COMMITTED_BYTES_PER_READY_MAX: u64 = 16 * 1024 * 1024;

/// Entries applied before inputs are looked at again: one batch.
pub const APPLY_ENTRIES_PER_TURN: usize = BATCH_PROPOSALS_MAX;

/// A checkpoint that would only move the applied index waits this long: it frees old log, and an
/// idle host's disk should sleep.
pub const CHECKPOINT_IDLE_MS: u64 = 60_000;

/// Bytes of entries the log may hold in memory for a peer that is being sent a snapshot: what was
/// written meanwhile, so that the peer can go on from it.
pub const LOG_HELD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A snapshot stream nobody was sent for this long is removed.
pub const SNAPSHOT_KEEP_MS: u64 = 300_000;

/// Time between two notes of where history stands, for retention by age: 120 notes an hour.
pub const HISTORY_NOTE_MS: u64 = 30_000;

/// Bytes of history a compaction leaves: some below the limit, so that the next is not at once.
pub const HISTORY_BYTES_LEFT: u64 = HISTORY_BYTES_MAX / 8 * 7;

/// Steps of one joint membership change: swapping every voter of the largest cluster.
pub const MEMBER_CHANGES_MAX: usize = 14;

/// Time a command gets between TERM and KILL.
pub const COMMAND_KILL_AFTER_MS: u64 = 5_000;

/// Time of a check command unless its resource says otherwise (confd's forks: 30 s).
pub const CHECK_TIMEOUT_MS: u64 = 30_000;

/// Time of a reload command unless its resource says otherwise.
pub const RELOAD_TIMEOUT_MS: u64 = 60_000;

/// First pause before a failed reload or pass is tried again; doubles from there.
pub const RETRY_BACKOFF_MS_MIN: u64 = 1_000;

/// Longest pause between two tries.
pub const RETRY_BACKOFF_MS_MAX: u64 = 60_000;

/// Wall time of one render: far above its CPU time, for a machine that swaps or a worker that
/// sleeps instead of computing.
pub const RENDER_WALL_MS_MAX: u64 = 15_000;

/// Address space of a render worker: the largest output, doubled while its buffer grows, its
/// frame, and as much again for values.
pub const RENDER_MEMORY_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Bytes of keys and values one render may read; more belongs into several files.
pub const RENDER_INPUT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of keys sent along with a render so that it need not ask for them one by one.
pub const RENDER_PRELOAD_BYTES_MAX: usize = 1024 * 1024;

/// Ranges sent along with a render.
pub const RENDER_PRELOAD_RANGES_MAX: usize = 256;

/// Keys and directories one render may touch and be woken for; beyond it, wake for the prefix.
pub const RENDER_TOUCHED_MAX: usize = 1_024;

/// Render workers at once: with two, one looping template does not hold up the others.
pub const RENDER_WORKERS_MAX: usize = 2;

/// Time after which an unused render worker is ended, to give its memory back.
pub const RENDER_WORKER_IDLE_MS: u64 = 60_000;

/// Parsed template sets one worker keeps.
pub const RENDER_TEMPLATES_PARSED_MAX: usize = 128;

/// A template or resource file in bytes.
pub const TEMPLATE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Files one template may include or extend, directly or not.
pub const TEMPLATE_FILES_MAX: usize = 64;

/// Template resources of one host.
pub const RESOURCES_MAX: usize = 1_000;

/// Quiet time after the last change of a template or resource file before it is read.
pub const FILES_QUIET_MS: u64 = 50;

/// Longest time changing files may put their reading off.
pub const FILES_WAIT_MS_MAX: u64 = 500;

/// Longest name of a member in bytes: that of a host name, its default.
pub const MEMBER_NAME_BYTES_MAX: usize = 255;

/// Addresses in one list of client URLs: a host with more interfaces listens on all of them.
pub const CLIENT_URLS_MAX: usize = 16;

/// Bytes of the settings file: far more than all settings need.
pub const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

/// Body of an answer the command line reads whole: a listing of a large tree.
pub const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Time a server of the command line has to accept a connection.
pub const CONNECT_TIMEOUT_MS: u64 = 3_000;

/// Endpoints the command line tries in turn.
pub const ENDPOINTS_MAX: usize = 16;

/// Pause before a watch of the command line connects again.
pub const WATCH_RECONNECT_MS: u64 = 250;

/// Failed connects in a row after which a watch of the command line gives up: a minute of
/// restarting server.
pub const WATCH_RECONNECTS_MAX: u32 = 240;

/// One event of a watch in bytes: two values of the largest size, escaped as JSON.
pub const WATCH_EVENT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Signals caught and not yet looked at; two of a kind mean the same.
pub const SIGNALS_WAITING_MAX: usize = 8;

/// Time from SIGTERM to the end of the process, whatever still runs: below the 5 s promised.
pub const STOP_MS_MAX: u64 = 4_700;

/// Time the service manager has to take a message: it may be busy, and this process is not to hang
/// with it.
pub const NOTIFY_SEND_MS_MAX: u64 = 1_000;

/// Time between two looks at what the service manager is shown as status.
pub const NOTIFY_STATUS_MS: u64 = 2_000;

/// Looks of the watchdog in the time it has: two may come late.
pub const WATCHDOG_LOOKS: u32 = 3;

/// Names of failing files in a line of status; the rest is a number.
pub const STATUS_NAMES_MAX: usize = 3;
/// KiB of addresses the allocator of a template worker reserves at a time.
pub const RENDER_ARENA_KIB: u64 = 32 * 1024;

/// Pause between tries of a checkpoint that found the disk full.
pub const CHECKPOINT_RETRY_MS: u64 = 200;

/// Bytes of a JSON file of keys that templates are tried with: a store's worth, not a backup.
pub const DATA_FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Lines of a file that are compared one by one for a diff; beyond, what differs is shown as one
/// block. The comparison needs memory in the square of the lines that changed.
pub const DIFF_EDITS_MAX: usize = 1_000;

/// Tries to find a free name for a directory in which a file is checked.
pub const SCRATCH_NAMES_MAX: usize = 16;
/// Descriptors kept back from clients: log, database, peers, and what templates and their commands
/// open.
pub const DESCRIPTORS_RESERVED: usize = 256;

/// Connections that are taken however few descriptors there are: an operator must get in.
pub const CONNECTIONS_MIN: usize = 16;

/// Time a request body may take before its pace counts.
pub const BODY_GRACE_MS: u64 = 10_000;

/// The slowest pace of a request body, in bytes per second: a phone's worst link is faster.
pub const BODY_BYTES_PER_SECOND_MIN: u64 = 1_000;
/// Last lines of a command's output that an error shows: a checker says at its end what is wrong.
pub const COMMAND_LINES_SHOWN_MAX: usize = 40;

/// Earlier versions kept of one rendered file: more is what a repository of templates is for.
pub const BACKUPS_MAX: u32 = 100;

/// Notes of one diagnostic: a chain of includes is no longer than there are files.
pub const DIAGNOSTIC_NOTES_MAX: usize = TEMPLATE_FILES_MAX;
/// Time a file operation of the renderer may take before the status calls it hanging: a disk that
/// is merely slow is faster.
pub const RENDER_DISK_MS_MAX: u64 = 10_000;

/// Time the task of a resource has to end when its resource changes: commands are killed at once,
/// and a file operation that takes longer must not hold the other resources up.
pub const RENDER_END_MS_MAX: u64 = 2_000;

/// Pause between two reads of output that is not kept: a command that floods waits in its write,
/// where it costs nothing, and still gets rid of some megabytes a second.
pub const COMMAND_DRAIN_PAUSE_MS: u64 = 10;

/// Levels of lists and maps a rendered file may have to be parsed for `output_format`.
pub const OUTPUT_DEPTH_MAX: usize = 127;

/// Values of a rendered file that are parsed for `output_format`, aliases counted as often as they
/// stand: a text of the largest output has fewer unless it was made to burst a reader.
pub const OUTPUT_NODES_MAX: usize = 4_000_000;

/// Longest sleep before a clock is looked at again: it can be set, and a host can be suspended.
pub const WINDOW_LOOK_MS_MAX: u64 = 60_000;

/// Links followed to a destination, one to the next: more is a circle.
pub const DEST_LINKS_MAX: usize = 16;
/// Host names one render may look up: each is a question to a server that may not answer.
pub const LOOKUPS_MAX: usize = 64;

/// Time one host name has to be found, and all of one render together: with name servers that
/// do not answer, a render still ends before `RENDER_WALL_MS_MAX`.
pub const LOOKUP_MS_MAX: u64 = 2_000;
/// See `LOOKUP_MS_MAX`.
pub const LOOKUPS_MS_MAX: u64 = 8_000;

/// Addresses of one host name a template sees.
pub const LOOKUP_ADDRESSES_MAX: usize = 256;

/// Threads that wait for name servers at once.
pub const LOOKUPS_AT_ONCE_MAX: usize = 4;

/// Bytes one regular expression of a template may take when compiled.
pub const REGEX_BYTES_MAX: usize = 1024 * 1024;

/// Compiled regular expressions a render worker keeps.
pub const REGEXES_KEPT_MAX: usize = 64;
/// Bytes of request bodies that are held while more of them is to come, of all clients together:
/// 64 of the largest. Small bodies come in one piece and are not counted.
pub const BODIES_HELD_BYTES_MAX: usize = 64 * BODY_BYTES_MAX;

/// Time a client may take nothing of an answer that is there for it; any progress begins it anew.
/// A watcher that is cut asks again from its next index and misses nothing.
pub const ANSWER_STALL_MS: u64 = 20_000;

/// Bytes of answers the kernel is to hold for one connection. Left alone it takes 4 MiB for a
/// client that does not read.
pub const SOCKET_SEND_BYTES: u32 = 256 * 1024;

/// Time a connection is kept after its last answer for what its client still sends: a socket
/// closed with bytes unread takes the answer with it.
pub const LINGER_MS: u64 = 2_000;

/// Bytes read and dropped meanwhile: several times what two sockets hold between them.
pub const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Silence after which the kernel asks whether a client's host is still there: a long poll of one
/// that lost its power is noticed within a minute.
pub const KEEPALIVE_IDLE_SECONDS: u64 = 30;

/// Time between two such questions.
pub const KEEPALIVE_INTERVAL_SECONDS: u64 = 10;

/// Such questions without an answer after which the connection is gone.
pub const KEEPALIVE_PROBES: u32 = 3;

/// Silence after which an HTTP/2 client is asked for a sign of life: what `HEADER_TIMEOUT_MS` is
/// to HTTP/1.1, since nobody can answer in the middle of a frame.
pub const HTTP2_PING_INTERVAL_MS: u64 = 10_000;

/// Time it has for that sign.
pub const HTTP2_PING_TIMEOUT_MS: u64 = 10_000;

/// Streams of one HTTP/2 connection that its client reset before this process looked at them; more
/// is an attack ("rapid reset"), and ends the connection.
pub const HTTP2_RESETS_PENDING_MAX: usize = 20;

/// Streams of one HTTP/2 connection that this process reset for errors of its client, likewise.
pub const HTTP2_RESETS_SENT_MAX: usize = 256;

/// Connections without a place that are waited for at one time until they have been told so.
pub const TURNING_AWAY_MAX: usize = 8;

/// Time between two log lines about clients that are turned away: a flood is told as a number.
pub const FLOOD_LOG_MS: u64 = 10_000;

/// Time between two looks at whether the threads that serve clients rest.
pub const REST_LOOK_MS: u64 = 1_000;

/// Work of those threads, all together, in the time between two looks that still counts as rest.
pub const REST_MS_MAX: u64 = 20;

/// Longest time for which threads that have given freed memory back wait for those that have not.
pub const REST_ROUND_MS: u64 = 20;
