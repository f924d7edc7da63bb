// What the kernel alone takes for a container, and for a command in one: no records, no protocol, no
// limits, no filter, no checks.
//
//   floor namespaces           six namespaces and ids
//   floor container DIRECTORY  and the mounts of a container, on an overlay below DIRECTORY
//   floor hold DIRECTORY COUNT so many of those, until the input ends
//   floor serve GROUP PROGRAM  for each byte of the input one run of PROGRAM, in a group of its own in GROUP

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FIRST_ID = 1900000000 };

static void check(long result, const char *what) {
    if (result < 0) {
        perror(what);
        exit(1);
    }
}

static void overwrite(const char *path, const char *text) {
    int file = open(path, O_WRONLY | O_CLOEXEC);
    check(file, path);
    check(write(file, text, strlen(text)), path);
    close(file);
}

static long born(unsigned long flags, int group) {
    struct clone_args how = {.flags = flags, .exit_signal = SIGCHLD};
    if (group >= 0) {
        how.flags |= CLONE_INTO_CGROUP;
        how.cgroup = group;
    }
    return syscall(SYS_clone3, &how, sizeof how);
}

static void bind_to(const char *source, const char *target, unsigned long flags) {
    check(mount(source, target, NULL, MS_BIND | MS_REC, NULL), target);
    if (flags)
        check(mount(NULL, target, NULL, MS_REMOUNT | MS_BIND | flags, NULL), target);
}

static void touch(const char *path) {
    int file = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    check(file, path);
    close(file);
}

// The mounts that a container of podkit has.
static void mounts(const char *directory) {
    enum { QUIET = MS_NOSUID | MS_NODEV | MS_NOEXEC };
    static const char *devices[] = {"null", "zero", "full", "random", "urandom", "tty"};
    static const char *read_only[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys"};
    char options[1024];
    check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "propagation");
    check(chdir(directory), directory);
    snprintf(options, sizeof options, "lowerdir=lower,upperdir=upper,workdir=work,userxattr");
    check(mount("none", "root", "overlay", MS_NOSUID | MS_NODEV, options), "overlay");
    check(chdir("root"), "root");
    bind_to("/usr", "usr", MS_RDONLY | MS_NOSUID | MS_NODEV);
    check(mount("proc", "proc", "proc", QUIET, NULL), "proc");
    check(mount("sysfs", "sys", "sysfs", QUIET | MS_RDONLY, NULL), "sysfs");
    check(mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "size=64k,mode=755"), "dev");
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        char source[64], target[64];
        snprintf(source, sizeof source, "/dev/%s", devices[i]);
        snprintf(target, sizeof target, "dev/%s", devices[i]);
        touch(target);
        bind_to(source, target, 0);
    }
    check(mkdir("dev/pts", 0755), "pts");
    check(mkdir("dev/shm", 0755), "shm");
    check(mkdir("dev/mqueue", 0755), "mqueue");
    check(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "ptmxmode=666"), "devpts");
    check(mount("tmpfs", "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "size=64m"), "shm");
    check(mount("mqueue", "dev/mqueue", "mqueue", QUIET, NULL), "mqueue");
    check(mount("tmpfs", "proc/acpi", "tmpfs", QUIET | MS_RDONLY, "size=0"), "acpi");
    check(mount("tmpfs", "sys/firmware", "tmpfs", QUIET | MS_RDONLY, "size=0"), "firmware");
    bind_to("dev/null", "proc/keys", 0);
    bind_to("dev/null", "proc/timer_list", 0);
    for (size_t i = 0; i < sizeof read_only / sizeof *read_only; i++)
        bind_to(read_only[i], read_only[i], QUIET | MS_RDONLY);
    check(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    check(umount2(".", MNT_DETACH), "umount");
    check(chdir("/"), "/");
}

// Makes a container; what it is in returns with 0.
static long container(const char *directory) {
    int ready[2];
    check(pipe2(ready, O_CLOEXEC), "pipe");
    long child = born(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET, -1);
    check(child, "clone3");
    char byte;
    if (child == 0) {
        check(read(ready[0], &byte, 1), "ids");
        check(setresgid(0, 0, 0), "setresgid");
        check(setresuid(0, 0, 0), "setresuid");
        if (directory)
            mounts(directory);
        close(ready[0]);
        close(ready[1]);
        return 0;
    }
    char path[64], map[64];
    snprintf(map, sizeof map, "0 %d 65536", FIRST_ID);
    snprintf(path, sizeof path, "/proc/%ld/gid_map", child);
    overwrite(path, map);
    snprintf(path, sizeof path, "/proc/%ld/uid_map", child);
    overwrite(path, map);
    check(write(ready[1], "x", 1), "ids");
    close(ready[0]);
    close(ready[1]);
    return child;
}

static void prepare(const char *directory) {
    static const char *places[] = {"lower", "lower/usr", "lower/proc", "lower/sys", "lower/dev", "upper", "work", "root"};
    char path[4096];
    mkdir(directory, 0755);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        snprintf(path, sizeof path, "%s/%s", directory, places[i]);
        if (mkdir(path, 0755) == 0)
            check(chown(path, FIRST_ID, FIRST_ID), path);
    }
}

static void run_once(const char *directory) {
    long child = container(directory);
    if (child == 0) {
        check(write(1, "x", 1), "write");
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

static void hold(const char *directory, long count) {
    char path[4096], byte;
    mkdir(directory, 0755);
    for (long i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/%ld", directory, i);
        prepare(path);
        if (container(path) == 0) {
            // Nobody writes, so all of them learn of the end.
            while (read(0, &byte, 1) > 0)
                ;
            _exit(0);
        }
    }
    check(write(1, "x", 1), "write");
    while (read(0, &byte, 1) > 0)
        ;
    while (wait(NULL) > 0)
        ;
}

static void serve(const char *group, const char *program) {
    char byte, path[4096];
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    snprintf(path, sizeof path, "%s/floor", group);
    while (read(0, &byte, 1) > 0) {
        int out[2], inside = -1;
        check(pipe2(out, O_CLOEXEC), "pipe");
        if (*group) {
            check(mkdir(path, 0755), path);
            check(inside = open(path, O_PATH | O_CLOEXEC), path);
        }
        long child = born(0, inside);
        check(child, "clone3");
        if (child == 0) {
            dup2(nothing, 0);
            dup2(out[1], 1);
            dup2(nothing, 2);
            execl(program, program, NULL);
            _exit(127);
        }
        close(out[1]);
        check(read(out[0], &byte, 1), "output");
        waitpid(child, NULL, 0);
        close(out[0]);
        if (*group) {
            close(inside);
            check(rmdir(path), path);
        }
        check(write(1, &byte, 1), "answer");
    }
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    if (strcmp(mode, "namespaces") == 0) {
        run_once(NULL);
    } else if (strcmp(mode, "container") == 0 && argc == 3) {
        prepare(argv[2]);
        run_once(argv[2]);
    } else if (strcmp(mode, "hold") == 0 && argc == 4) {
        hold(argv[2], atol(argv[3]));
    } else if (strcmp(mode, "serve") == 0 && argc == 4) {
        serve(argv[2], argv[3]);
    } else {
        return 2;
    }
    return 0;
}
