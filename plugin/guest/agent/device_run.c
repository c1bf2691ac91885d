/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The life of one device: port, program, end, and again. */
#define _GNU_SOURCE
#include "device.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	PORT_RETRY = 10,     /* ms between looks for a port or a disk that is not there yet */
	PORT_PATIENCE = 10000,
	PORT_SLOW = 500,
	RESTART_PAUSE = 10,  /* lets the host see the port close before it opens again */
	FAILED_PAUSE = 30000,
	FAST_WINDOW = 10000, /* FAST_EXITS within it: failed */
	STOP_GRACE = 2000,
	STOP_GRACE_IDLE = 200, /* nobody connected: nothing to finish */
	LINES_PER_SECOND = 50,
	HANGUP_GRACE = 1000, /* for a program to end after its peer left; none when the next is there */
	ORPHAN_STEP = 5,
	PEER_LOOK = 200,     /* between two looks whether the peer is there, while a program runs */
	SPOKEN = 500,	     /* ms alive with a connected peer: it has said something */
	TALKING = 1000,	     /* ms alive with a connected peer that count as readiness */
	HANG_LOOK = 5000,    /* between two looks whether a program hangs */
	HANG_PATIENCE = 30000,
};

/* Edge-triggered, because an unconnected port reports its hang-up all the time. Only a port that no
 * program has is watched so: to poll one takes the data that has arrived off its queue, and a program
 * that sleeps in a read of it would not be woken (virtio_console: the interrupt then finds the queue
 * empty). While a program runs, the agent looks from time to time at what the kernel notes. */
enum { WATCH_CONNECT = EPOLLOUT | EPOLLET };

static void close_port(struct device *device)
{
	if (device->fd >= 0) {
		events_remove(device->fd); /* closing is not enough: the program has it as well */
		close(device->fd);
	}
	device->fd = -1;
}

static void forget_ready(const struct device *device)
{
	char path[MAX_NAME + 16];

	mkdir(READY_DIR, 0755);
	device_ready_path(device, path, sizeof path);
	unlink(path);
}

static bool says_ready(const struct device *device)
{
	char path[MAX_NAME + 16];

	device_ready_path(device, path, sizeof path);
	return access(path, F_OK) == 0;
}

static int64_t start(struct device *device, unsigned slot, int64_t now)
{
	if (device->fd >= 0)
		events_remove(device->fd);
	device->needs_peer = false;
	device->ready = device->peer_seen = device->hung_up = false;
	device->started = device->hangs_since = now;
	if (device->portless)
		forget_ready(device);
	device->traffic = port_traffic(device->fd);
	device->oom_kills = oom_kills();
	if (!device_spawn(device, slot)) {
		close_port(device);
		device->phase = PHASE_PAUSE;
		return device->due = now + 1000;
	}
	device->phase = PHASE_ALIVE;
	device->step = PORT_RETRY;
	return device->due = now + device->step;
}

/* The port is opened anew for each run: closing it is what throws away unread bytes
 * of the peer before. */
static int64_t look_for_port(struct device *device, unsigned slot, int64_t now)
{
	bool disk = (!device->backing[0] || backing_ready(device->backing, device->backing_size)) &&
		    (!device->base[0] || backing_ready(device->base, 0));

	if (!device->started)
		device->started = now;
	if (disk && device->portless)
		return start(device, slot, now);
	if (disk)
		device->fd = port_open(device->port, O_RDWR);
	if (device->fd < 0) {
		if (now - device->started < PORT_PATIENCE)
			return device->due = now + PORT_RETRY;
		if (!device->failed)
			log_message("%s: %s %s did not appear", device->name, disk ? "port" : "disk",
				    disk ? device->port : device->backing);
		device->failed = true;
		return device->due = now + PORT_SLOW;
	}
	if (device->needs_peer && !port_connected(device->fd)) {
		events_add(device->fd, EVENT_PORT, slot, WATCH_CONNECT);
		device->phase = PHASE_PEER;
		return device->due = INT64_MAX;
	}
	return start(device, slot, now);
}

/* A program that is blocked in a write to nobody would go on with it to the next peer. */
static int64_t look_at_orphan(struct device *device, int64_t now)
{
	if (now >= device->patience || session_waits(device->pid, device->fd, WAITS_TO_WRITE))
		kill(-device->pid, SIGKILL);
	return device->due = now + ORPHAN_STEP;
}

/* A program whose peer has left has to end, for the next peer must not get the rest of an
 * answer to the last. Most notice by themselves. */
static void look_for_peer(struct device *device, int64_t now)
{
	bool connected = port_connected(device->fd);

	if (!device->peer_seen && (connected || port_traffic(device->fd) != device->traffic)) {
		device->peer_seen = true;
		if (!device->ready) /* it may now come to wait for something else, and soon */
			device->step = PORT_RETRY;
	}
	if (!connected && device->peer_seen && !device->hung_up) {
		device->hung_up = true;
		device->patience = now + HANGUP_GRACE;
	} else if (connected && device->hung_up) {
		device->patience = now;
	}
}

/* A program that can never go on would keep its peer waiting for ever. One that waits for something from outside, be it
 * for ever, is left alone: nobody can tell what will come. */
static void look_for_hang(struct device *device, int64_t now)
{
	long long traffic;

	if (now < device->hang_look)
		return;
	device->hang_look = now + HANG_LOOK;
	traffic = port_traffic(device->fd);
	if (!port_connected(device->fd) || traffic != device->hang_traffic || !session_hangs(device->pid)) {
		device->hangs_since = now;
		device->hang_traffic = traffic;
	} else if (now - device->hangs_since >= HANG_PATIENCE) {
		log_message("%s: it hangs: all of it is stopped, or waits for itself", device->name);
		kill(-device->pid, SIGKILL);
	}
}

/* While a program starts, look often at first, then ever less. */
static int64_t look_at_program(struct device *device, int64_t now)
{
	bool talks;

	if (now < device->due)
		return device->due;
	if (!device->portless)
		look_for_peer(device, now);
	if (device->hung_up)
		return look_at_orphan(device, now);
	if (device->ready) {
		look_for_hang(device, now);
		return device->due = now + PEER_LOOK;
	}
	talks = device->peer_seen && now - device->started >= TALKING;
	if (device->portless ? says_ready(device) : session_waits(device->pid, device->fd, WAITS_AT_ALL) || talks) {
		device->ready = true;
		device->failed = false;
		device->fast_exits = 0;
		return device->due = now + PEER_LOOK;
	}
	device->step = device->step < 500 ? device->step * 3 / 2 : 500;
	return device->due = now + device->step;
}

static int64_t look_at_peer(struct device *device, unsigned slot, int64_t now)
{
	if (!port_connected(device->fd))
		return device->due;
	return start(device, slot, now);
}

/* Something has happened on a port that is watched, that is one whose device waits for a peer. */
void device_port_changed(struct device *device, unsigned slot, int64_t now)
{
	if (device->phase == PHASE_PEER)
		look_at_peer(device, slot, now);
}

int64_t device_step(struct device *device, unsigned slot, int64_t now)
{
	switch (device->phase) {
	case PHASE_PAUSE:
		if (now < device->due)
			return device->due;
		device->phase = PHASE_PORT;
		device->started = now;
		return look_for_port(device, slot, now);
	case PHASE_PORT:
		return now < device->due ? device->due : look_for_port(device, slot, now);
	case PHASE_PEER:
		return look_at_peer(device, slot, now);
	case PHASE_ALIVE:
		return look_at_program(device, now);
	case PHASE_STOPPING:
		if (now < device->due)
			return device->due;
		kill(-device->pid, SIGKILL);
		return device->due = now + 1000;
	case PHASE_STOPPED:
		break;
	}
	return INT64_MAX;
}

void device_stop(struct device *device, int64_t now)
{
	if (device->phase == PHASE_STOPPING || device->phase == PHASE_STOPPED)
		return;
	if (device->phase != PHASE_ALIVE) {
		close_port(device);
		device->phase = PHASE_STOPPED;
		return;
	}
	device->due = now + (device->portless || port_connected(device->fd) ? STOP_GRACE : STOP_GRACE_IDLE);
	device->phase = PHASE_STOPPING;
	kill(-device->pid, SIGTERM);
}

/* Where a peer left and the next came faster than anybody here could see: as if it had been seen. */
void device_restart(struct device *device, int64_t now)
{
	if (device->phase != PHASE_ALIVE)
		return;
	device->hung_up = true;
	device->patience = device->due = now;
}

/* How long to wait before the next run; too many useless runs are a failure. */
static int64_t pause_after_failure(struct device *device, int64_t now)
{
	if (!device->fast_exits++)
		device->first_fast = now;
	if (device->failed)
		return FAILED_PAUSE;
	if (device->fast_exits >= FAST_EXITS && now - device->first_fast < FAST_WINDOW) {
		device->failed = true;
		log_message("%s: failed: it ended %u times without serving", device->name, device->fast_exits);
		return FAILED_PAUSE;
	}
	return (int64_t)100 << (device->fast_exits < 6 ? device->fast_exits : 6);
}

static void tell_end(const struct device *device, int status, bool connected)
{
	const char *peer = device->portless ? "by itself" : connected ? "while its peer was connected" : "with nobody connected";
	bool starved = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && oom_kills() > device->oom_kills;

	if (WIFSIGNALED(status))
		log_message("%s: killed by signal %d %s%s", device->name, WTERMSIG(status), peer,
			    starved ? ", out of memory" : "");
	else
		log_message("%s: exit status %d %s", device->name, WEXITSTATUS(status), peer);
}

/* The whole session ends with its leader, or the port stays busy. An exit status of 0 is
 * how an emulator says that its peer took leave, whoever is connected by now: the next
 * in QEMU's queue is let in at once. Anything else in mid-conversation leaves the peer
 * with half an answer, so that `onExit: poweroff` takes the VM down rather than greet it. */
void device_exited(struct device *device, int status, int64_t now)
{
	bool connected = port_connected(device->fd) && !device->hung_up;
	/* Without a peer to take leave of, an end is never how it should be. */
	bool clean = !device->portless && WIFEXITED(status) && WEXITSTATUS(status) == 0;
	bool stopping = device->phase == PHASE_STOPPING;
	/* One that died at once, not having been seen at work, has told its peer nothing yet. */
	bool spoke = connected && (device->ready || now - device->started >= SPOKEN);

	kill(-device->pid, SIGKILL);
	device_read_errors(device);
	events_remove(device->errors);
	close(device->errors);
	device->errors = -1;
	close_port(device);
	device->pid = 0;
	if (stopping) {
		device->phase = PHASE_STOPPED;
		return;
	}
	clean = clean || device->hung_up;
	if (!clean)
		tell_end(device, status, connected);
	if (!clean && spoke && device->death_powers_off) {
		log_message("%s: powering off, so that its peer sees a broken connection", device->name);
		power_off();
	}
	device->restarts++;
	device->needs_peer = clean && !connected && !device->ready;
	device->phase = PHASE_PAUSE;
	device->due = now + (clean ? RESTART_PAUSE : device->ready ? 100 : pause_after_failure(device, now));
	device->ready = false;
}

static void log_line(struct device *device)
{
	static const char more[] = "(more, not shown)";
	int64_t second = now_ms() / 1000;

	if (second != device->lines_second)
		device->lines_left = LINES_PER_SECOND;
	device->lines_second = second;
	if (device->lines_left > 1)
		log_text(device->name, device->line, device->line_used);
	else if (device->lines_left == 1)
		log_text(device->name, more, sizeof more - 1);
	if (device->lines_left)
		device->lines_left--;
	device->line_used = 0;
}

/* At most one pipe's worth a call: a program that writes without end starves nobody. */
void device_read_errors(struct device *device)
{
	char data[4096];
	ssize_t size;

	for (int i = 0; i < 16 && (size = read(device->errors, data, sizeof data)) > 0; i++)
		for (ssize_t j = 0; j < size; j++) {
			if (data[j] != '\n' && device->line_used < sizeof device->line)
				device->line[device->line_used++] = data[j];
			else if (data[j] == '\n')
				log_line(device);
		}
	if (size == 0)
		events_remove(device->errors);
}

const char *device_state(const struct device *device)
{
	if (device->phase == PHASE_STOPPING || device->phase == PHASE_STOPPED)
		return "stopped";
	if (device->failed)
		return "failed";
	if (device->phase == PHASE_PEER)
		return "waiting";
	return device->phase == PHASE_ALIVE && device->ready && !device->hung_up ? "running" : "starting";
}

/* Since when the state is this one, and a peer is there or not: looked at again and again, so that nobody has to ask. */
int64_t device_changed(struct device *device, bool connected, int64_t now)
{
	const char *state = device_state(device);

	if (!device->told || strcmp(device->told, state) || device->told_peer != connected)
		device->changed = now;
	device->told = state;
	device->told_peer = connected;
	return device->changed;
}
