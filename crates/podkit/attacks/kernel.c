// Attacks on the kernel's wide or privileged interfaces.
#include "attack.h"
#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <linux/reboot.h>
#include <linux/userfaultfd.h>
#include <sys/fanotify.h>
#include <sys/io.h>
#include <sys/klog.h>
#include <sys/personality.h>
#include <sys/reboot.h>
#include <sys/swap.h>
#include <sys/timex.h>
#include <time.h>

static long key(char **argument) {
    (void)argument;
    return syscall(SYS_add_key, "user", "podkit-attack", "x", 1, KEY_SPEC_PROCESS_KEYRING);
}

// Takes over a keyring that belongs to the user, not to the container.
static long keyring(char **argument) {
    (void)argument;
    return syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_USER_KEYRING, 1);
}

static long bpf_map(char **argument) {
    (void)argument;
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.map_type = BPF_MAP_TYPE_ARRAY;
    attr.key_size = 4;
    attr.value_size = 4;
    attr.max_entries = 1;
    return syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof attr);
}

static long perf(char **argument) {
    (void)argument;
    struct perf_event_attr attr = {
        .type = PERF_TYPE_SOFTWARE,
        .size = sizeof attr,
        .config = PERF_COUNT_SW_CPU_CLOCK,
    };
    return syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
}

static long fault_handler(char **argument) {
    (void)argument;
    return syscall(SYS_userfaultfd, O_CLOEXEC);
}

static long ring(char **argument) {
    (void)argument;
    struct io_uring_params parameters;
    memset(&parameters, 0, sizeof parameters);
    return syscall(SYS_io_uring_setup, 2, &parameters);
}

// An empty module is refused as such by a kernel that would take a good one.
static long module(char **argument) {
    (void)argument;
    long result = syscall(SYS_init_module, "", 0, "");
    return result < 0 && errno == ENOEXEC ? 0 : result;
}

// The same by the newer call: this program is no module, and refused as such.
static long module_from_file(char **argument) {
    (void)argument;
    int fd = open("/proc/self/exe", O_RDONLY);
    if (fd < 0)
        return -1;
    long result = syscall(SYS_finit_module, fd, "", 0);
    return result < 0 && errno == ENOEXEC ? 0 : result;
}

// Unloads a kernel that was never loaded: harmless, and refused to those who may not load one.
static long kexec(char **argument) {
    (void)argument;
    return syscall(SYS_kexec_load, 0, 0, NULL, 0);
}

// Swaps to a file of the attacker's: no more than an allowed call on a file that is no swap.
static long swap(char **argument) {
    int result = swapon(argument[0], 0);
    return result < 0 && errno == EINVAL ? 0 : result;
}

// Only says that Ctrl-Alt-Del reboots, as it does: the same right that a reboot needs.
static long reboot_machine(char **argument) {
    (void)argument;
    return reboot(LINUX_REBOOT_CMD_CAD_ON);
}

static long set_time(char **argument) {
    (void)argument;
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) < 0)
        return -1;
    return clock_settime(CLOCK_REALTIME, &now);
}

// Sets the clock's frequency to what it is.
static long slew(char **argument) {
    (void)argument;
    struct timex state = {0};
    if (adjtimex(&state) < 0)
        return -1;
    state.modes = ADJ_FREQUENCY;
    return adjtimex(&state);
}

static long ports(char **argument) {
    (void)argument;
    return iopl(3);
}

static long kernel_log(char **argument) {
    (void)argument;
    char buffer[64];
    return klogctl(3, buffer, sizeof buffer);
}

// Where the kernel's functions are: what attacks on its memory begin with.
static long addresses(char **argument) {
    (void)argument;
    char buffer[64];
    if (read_some("/proc/kallsyms", buffer, sizeof buffer) < 0)
        return -1;
    return strtoull(buffer, NULL, 16) != 0 ? 0 : fail(EPERM);
}

// Stops every program that opens a file, until this one lets it.
static long file_watch(char **argument) {
    (void)argument;
    return fanotify_init(FAN_CLASS_CONTENT, O_RDONLY);
}

// Makes all that can be read executable.
static long change_personality(char **argument) {
    (void)argument;
    return personality(READ_IMPLIES_EXEC);
}

// Gives the machine the name that it has.
static long host_name(char **argument) {
    (void)argument;
    char name[256];
    if (gethostname(name, sizeof name) < 0)
        return -1;
    return sethostname(name, strlen(name));
}

// Names a file that is missing, which only those are told who may switch accounting on.
static long accounting(char **argument) {
    (void)argument;
    long result = syscall(SYS_acct, "/nowhere/at/all");
    return result < 0 && errno == ENOENT ? 0 : result;
}

// The calls of 32-bit programs have other numbers, which a filter may forget: getpid is 20.
static long compat_call(char **argument) {
    (void)argument;
    long result = 20;
    __asm__ volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
    return result < 0 ? fail((int)-result) : 0;
}

int main(int argc, char **argv) {
    static const struct attack attacks[] = {
        {"add_key", key},
        {"keyring", keyring},
        {"bpf", bpf_map},
        {"perf_event_open", perf},
        {"userfaultfd", fault_handler},
        {"io_uring_setup", ring},
        {"init_module", module},
        {"finit_module", module_from_file},
        {"kexec_load", kexec},
        {"swapon", swap},
        {"reboot", reboot_machine},
        {"settime", set_time},
        {"adjtimex", slew},
        {"iopl", ports},
        {"kernel_log", kernel_log},
        {"addresses", addresses},
        {"fanotify_init", file_watch},
        {"personality", change_personality},
        {"sethostname", host_name},
        {"acct", accounting},
        {"compat_call", compat_call},
        {0},
    };
    return attack_main(attacks, argc, argv);
}
