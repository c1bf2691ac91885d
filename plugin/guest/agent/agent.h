/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The agent: PID 1 of a device VM, or a service in one. It starts the emulators, keeps them so, and answers the host. */
#ifndef DEVICEVM_AGENT_H
#define DEVICEVM_AGENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CONFIG_NAME "opt/org.devicevm/config"
#define CONTROL_PORT "org.devicevm.control"
#define MODULES_FILE "/etc/devicevm/modules"
#define BACKING_DIR "/dev/backing"
#define MEMORY_DIR "/run/backing"
#define SECRET_NAME "opt/org.devicevm/secret/"
#define SECRET_DIR "/run/secrets"

enum { MAX_DEVICES = 64, MAX_NAME = 128, MAX_SECRET = 4096, MAX_LINE = 64 * 1024, MAX_CONFIG = 1024 * 1024 };

/* boot.c: what a kernel needs before the first program can run. */
void boot_mount(void);
void boot_load_modules(const char *list);
int64_t now_ms(void);
long oom_kills(void); /* so far; -1 where the kernel does not count them */
void power_off(void) __attribute__((noreturn));

/* fwcfg.c: the host's configuration; NULL when there is none. The caller frees it. */
char *fwcfg_read(const char *name, size_t *size);

/* base64.c */
ssize_t base64_decode(char *text, size_t size);

/* log.c: a bounded log in memory, echoed to the console. */
void log_open(void);
void log_message(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_text(const char *name, const char *text, size_t size);
json_t *log_tail(size_t lines);

/* ports.c */
int port_open(const char *name, int flags);
bool port_connected(int fd);
long long port_traffic(int fd); /* bytes so far, both ways: who has come and gone unseen has left some */

/* storage.c: true once /dev/backing/SERIAL leads to the disk with that serial, or, with a size,
 * to a file of that many bytes in memory. Forgetting takes such a file's memory back. */
bool backing_ready(const char *serial, int64_t size);
void backing_forget(const char *serial, int64_t size);

/* secrets.c: `secrets` maps names to base64, or to null for what the host has put in fw_cfg. Each becomes a file in
 * memory that root alone reads. On failure `error` says why. */
bool secrets_keep(json_t *secrets, char *error, size_t size);
void secrets_forget(json_t *secrets);

/* waiting.c: does a process of this session wait for the port open here as `port`? */
enum waits { WAITS_AT_ALL, WAITS_TO_WRITE, GOES_ON };
bool session_waits(pid_t session, int port, enum waits how);
/* Can none of its threads go on by itself, since each is stopped or waits for another one? */
bool session_hangs(pid_t session);

/* events.c: one epoll set; `kind` and `index` come back with the event. */
enum event_kind { EVENT_SIGNAL = 1, EVENT_CONTROL, EVENT_PORT, EVENT_STDERR };
bool events_add(int fd, enum event_kind kind, unsigned index, uint32_t events);
void events_remove(int fd);
void events_run(void) __attribute__((noreturn));

/* devices.c: `config` is borrowed; on failure `error` (of any size given) says why. */
bool devices_add(json_t *config, char *error, size_t size);
bool devices_remove(const char *name, json_t *id);
bool devices_restart(const char *name);
void devices_stop_all(void);
bool devices_all_gone(void);
json_t *devices_status(void);
int64_t devices_step(int64_t now);
void devices_reap(void);
void devices_port_event(unsigned index);
void devices_stderr_event(unsigned index);

/* control.c */
void control_init(const char *config_problem);
int64_t control_step(int64_t now);
void control_event(void);
void control_reply(json_t *id, const char *error, json_t *extra);
bool control_powering_off(void);

#endif
