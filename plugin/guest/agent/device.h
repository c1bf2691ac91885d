/* SPDX-License-Identifier: GPL-3.0-or-later */
/* One device and what becomes of it. Private to device_*.c and devices.c. */
#ifndef DEVICEVM_DEVICE_H
#define DEVICEVM_DEVICE_H

#include "agent.h"

#define READY_DIR "/run/ready"

enum { MAX_ARGUMENTS = 256, FAST_EXITS = 5 };

enum phase {
	PHASE_PORT,	/* waits for its port and its backing disk to appear */
	PHASE_PEER,	/* has its port; the program runs as soon as the host connects */
	PHASE_ALIVE,	/* the program runs */
	PHASE_PAUSE,	/* the program ended; it runs again at `due` */
	PHASE_STOPPING, /* got SIGTERM; gets SIGKILL at `due` */
	PHASE_STOPPED,	/* to be forgotten, or to be replaced by `replacement` */
};

struct device {
	/* what was asked for */
	char name[MAX_NAME], port[128], backing[MAX_NAME], base[MAX_NAME];
	bool portless;	      /* it serves by other means than a port, and says by itself when it is ready */
	int64_t backing_size; /* bytes in memory; 0: the backing is a disk */
	char **argv, **envp;
	bool death_powers_off;
	json_t *config;

	/* what is */
	enum phase phase;
	int fd, errors;	      /* the port; the program's standard error */
	pid_t pid;	      /* also its session and its process group */
	int64_t due, started; /* ms */
	long oom_kills;	      /* when the program was started */
	long long traffic;    /* of the port when the program was started */
	int64_t patience;     /* ms: a program whose peer left must have ended by then */
	int64_t step;	      /* ms between two looks at a program that starts */
	int64_t hang_look;    /* ms: when to look next whether the program hangs */
	int64_t hangs_since;  /* ms */
	long long hang_traffic; /* of the port then */
	unsigned restarts;
	unsigned fast_exits;  /* in a row, without ever having waited for its port */
	int64_t first_fast;
	bool ready;	      /* was seen to wait for its port, or said so, since it was started */
	bool peer_seen;	      /* somebody connected since it was started */
	bool hung_up;	      /* ... and left: the program has to end */
	bool failed;
	const char *told;     /* the state, and whether a peer is there, that are so since `changed` */
	bool told_peer;
	int64_t changed;      /* ms */
	bool needs_peer;      /* ended at once because nobody was connected */
	char line[512];
	size_t line_used;
	unsigned lines_left;  /* on the log, in this second */
	int64_t lines_second;

	json_t *replacement;  /* comes when this one has stopped */
	json_t *remove_id;    /* whom to tell when this one has stopped */
};

/* device_config.c; a portless program is ready when it has made the file that $READY names. */
bool device_check(json_t *config, char *error, size_t size);
bool device_init(struct device *device, json_t *config);
void device_ready_path(const struct device *device, char *path, size_t size);
void device_free(struct device *device);

/* device_run.c: `slot` is the device's place in the table. */
int64_t device_step(struct device *device, unsigned slot, int64_t now);
void device_port_changed(struct device *device, unsigned slot, int64_t now);
void device_stop(struct device *device, int64_t now);
void device_restart(struct device *device, int64_t now);
void device_exited(struct device *device, int status, int64_t now);
void device_read_errors(struct device *device);
const char *device_state(const struct device *device);
int64_t device_changed(struct device *device, bool connected, int64_t now);

/* device_spawn.c */
bool device_spawn(struct device *device, unsigned slot);

#endif
