// Attacks on other processes, on rights and on namespaces.
#include "attack.h"
#include <grp.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <termios.h>

static long trace(char **argument) {
    return ptrace(PTRACE_ATTACH, atoi(argument[0]), 0, 0);
}

// Reads one byte of another process's memory, at an address from its own map where it shows one.
static long read_memory(char **argument) {
    pid_t pid = atoi(argument[0]);
    char path[64], line[256] = "0";
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    read_some(path, line, sizeof line);
    char byte;
    struct iovec here = {&byte, 1}, there = {(void *)strtoul(line, NULL, 16), 1};
    return process_vm_readv(pid, &here, 1, &there, 1, 0);
}

static long send_signal(char **argument) {
    return kill(atoi(argument[0]), SIGKILL);
}

// Takes a descriptor of another process.
static long take_descriptor(char **argument) {
    long pidfd = syscall(SYS_pidfd_open, atoi(argument[0]), 0);
    if (pidfd < 0)
        return -1;
    return syscall(SYS_pidfd_getfd, pidfd, 0, 0);
}

static long new_user_namespace(char **argument) {
    (void)argument;
    return unshare(CLONE_NEWUSER);
}

static long clone_user_namespace(char **argument) {
    (void)argument;
    long pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(0);
    return pid;
}

// clone3 keeps its flags in memory, where a filter cannot see them.
static long clone3_mount_namespace(char **argument) {
    (void)argument;
    struct clone_args args = {.flags = CLONE_NEWNS, .exit_signal = SIGCHLD};
    long pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0)
        _exit(0);
    return pid;
}

static long join_namespace(char **argument) {
    int fd = open(argument[0], O_RDONLY);
    if (fd < 0)
        return -1;
    return setns(fd, 0);
}

// Takes a capability that the command was not given.
static long raise_capability(char **argument) {
    (void)argument;
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data) < 0)
        return -1;
    data[0].permitted |= 1u << CAP_SYS_ADMIN;
    data[0].effective |= 1u << CAP_SYS_ADMIN;
    return syscall(SYS_capset, &header, data);
}

static long realtime(char **argument) {
    (void)argument;
    struct sched_param parameters = {.sched_priority = 1};
    return sched_setscheduler(0, SCHED_FIFO, &parameters);
}

// Runs itself through a copy that belongs to root and has the set-id bit, as an ordinary user.
static long set_id(char **argument) {
    char buffer[64 * 1024];
    ssize_t got;
    int from = open("/proc/self/exe", O_RDONLY), to = open(argument[0], O_WRONLY | O_CREAT | O_TRUNC, 0755);
    if (from < 0 || to < 0)
        return -1;
    while ((got = read(from, buffer, sizeof buffer)) > 0)
        if (write(to, buffer, (size_t)got) != got)
            return -1;
    if (fchmod(to, 04755) < 0 || close(to) < 0)
        return -1;
    pid_t pid = fork();
    if (pid == 0) {
        if (setgroups(0, NULL) < 0 || setgid(65534) < 0 || setuid(65534) < 0)
            _exit(errno);
        close(1);
        execl(argument[0], argument[0], "became_root", NULL);
        _exit(errno);
    }
    int status;
    if (waitpid(pid, &status, 0) < 0)
        return -1;
    unlink(argument[0]);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : fail(EPERM);
}

static long became_root(char **argument) {
    (void)argument;
    return geteuid() == 0 ? 0 : fail(EPERM);
}

// Types a command into every terminal that it was given.
static long type_into_terminal(char **argument) {
    (void)argument;
    for (int fd = 0; fd < 3; fd++)
        if (ioctl(fd, TIOCSTI, "\n") == 0)
            return 0;
    int terminal = open("/dev/tty", O_RDWR);
    if (terminal < 0)
        return -1;
    return ioctl(terminal, TIOCSTI, "\n");
}

// Replaces the program of another process on disk, through its /proc entry.
static long overwrite_program(char **argument) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%s/exe", argument[0]);
    int place = open(path, O_PATH);
    if (place < 0)
        return -1;
    // A running program cannot be written: the attack waits for its end.
    if (atoi(argument[0]) > 1) {
        kill(atoi(argument[0]), SIGKILL);
        for (int tries = 0; tries < 1000 && kill(atoi(argument[0]), 0) == 0; tries++)
            sched_yield();
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", place);
    int fd;
    int tries = 0;
    do {
        fd = open(path, O_WRONLY);
    } while (fd < 0 && errno == ETXTBSY && tries++ < 100000);
    return fd;
}

// Starts processes until it is refused, and says how many there were.
static long fork_bomb(char **argument) {
    int ready[2];
    long started = 0;
    if (pipe(ready) < 0)
        return -1;
    for (; started < atol(argument[0]); started++) {
        pid_t pid = fork();
        if (pid < 0)
            break;
        if (pid == 0) {
            char byte;
            close(ready[1]);
            _exit(read(ready[0], &byte, 1) < 0);
        }
    }
    int kept = errno;
    printf("%ld ", started);
    fflush(stdout);
    close(ready[1]);
    while (wait(NULL) > 0) {
    }
    errno = kept;
    return started == atol(argument[0]) ? 0 : -1;
}

// Fills memory until it ends.
static long memory_bomb(char **argument) {
    for (long i = 0; i < atol(argument[0]); i++) {
        char *block = malloc(1 << 20);
        if (!block)
            return -1;
        memset(block, 1, 1 << 20);
    }
    return 0;
}

int main(int argc, char **argv) {
    static const struct attack attacks[] = {
        {"ptrace", trace},
        {"read_memory", read_memory},
        {"kill", send_signal},
        {"take_descriptor", take_descriptor},
        {"unshare_user", new_user_namespace},
        {"clone_user", clone_user_namespace},
        {"clone3_mount", clone3_mount_namespace},
        {"setns", join_namespace},
        {"raise_capability", raise_capability},
        {"realtime", realtime},
        {"set_id", set_id},
        {"became_root", became_root},
        {"tiocsti", type_into_terminal},
        {"overwrite_program", overwrite_program},
        {"fork_bomb", fork_bomb},
        {"memory_bomb", memory_bomb},
        {0},
    };
    return attack_main(attacks, argc, argv);
}
