// Attacks on the mount table and the root of the container.
#include "attack.h"
#include <linux/mount.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

static long mount_tmpfs(char **argument) {
    return mount("none", argument[0], "tmpfs", 0, "");
}

// The same by the newer calls, which a filter written for mount(2) may forget.
static long mount_api(char **argument) {
    (void)argument;
    long context = syscall(SYS_fsopen, "tmpfs", 0);
    if (context < 0)
        return -1;
    if (syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -1;
    return syscall(SYS_fsmount, context, 0, 0);
}

static long open_tree_clone(char **argument) {
    (void)argument;
    return syscall(SYS_open_tree, AT_FDCWD, "/", OPEN_TREE_CLONE);
}

static long unmount(char **argument) {
    return umount2(argument[0], MNT_DETACH);
}

// Makes a read-only mount writable again.
static long remount(char **argument) {
    return mount(NULL, argument[0], NULL, MS_REMOUNT | MS_BIND, NULL);
}

// The same by the newer call.
static long set_attributes(char **argument) {
    struct mount_attr attributes = {.attr_clr = MOUNT_ATTR_RDONLY};
    return syscall(SYS_mount_setattr, AT_FDCWD, argument[0], 0, &attributes, sizeof attributes);
}

static long pivot(char **argument) {
    // The new root must be a mount; where mounting is refused the call itself still must be.
    mount("none", argument[0], "tmpfs", 0, "");
    if (chdir(argument[0]) < 0)
        return -1;
    return syscall(SYS_pivot_root, ".", ".");
}

// Leaves a chroot the classic way, and looks for a file of the host's.
static long chroot_escape(char **argument) {
    if (mkdir(argument[0], 0700) < 0 && errno != EEXIST)
        return -1;
    if (chroot(argument[0]) < 0)
        return -1;
    for (int i = 0; i < 64; i++)
        if (chdir("..") < 0)
            return -1;
    if (chroot(".") < 0)
        return -1;
    return access(argument[1], F_OK);
}

// Makes the device of the kernel's log anew, and opens it.
static long make_device(char **argument) {
    unlink(argument[0]);
    if (mknod(argument[0], S_IFCHR | 0600, makedev(1, 11)) < 0)
        return -1;
    long result = open(argument[0], O_RDONLY);
    int kept = errno;
    unlink(argument[0]);
    errno = kept;
    return result;
}

static long handle(char **argument) {
    union {
        struct file_handle handle;
        char room[sizeof(struct file_handle) + 128];
    } at = {.handle = {.handle_bytes = 128}};
    int mount_id;
    if (name_to_handle_at(AT_FDCWD, argument[0], &at.handle, &mount_id, 0) < 0) {
        // Overlays may have no handles: the call that matters takes a made-up one.
        at.handle.handle_bytes = 8;
        at.handle.handle_type = 1;
    }
    int mount_fd = open(argument[0], O_RDONLY);
    if (mount_fd < 0)
        return -1;
    return open_by_handle_at(mount_fd, &at.handle, O_RDONLY);
}

// Runs a helper of the attacker's choice on the host, by way of a cgroup's release agent.
static long release_agent(char **argument) {
    char path[4096];
    if (mount("none", argument[0], "cgroup", 0, "none,name=podkit-attack") < 0)
        return -1;
    snprintf(path, sizeof path, "%s/release_agent", argument[0]);
    long result = overwrite(path, "/bin/true");
    int kept = errno;
    umount2(argument[0], MNT_DETACH);
    errno = kept;
    return result;
}

// Names a program that the kernel starts for files of a kind, on the host.
static long binary_format(char **argument) {
    char path[4096];
    if (mount("none", argument[0], "binfmt_misc", 0, "") < 0)
        return -1;
    snprintf(path, sizeof path, "%s/register", argument[0]);
    long result = open(path, O_WRONLY);
    int kept = errno;
    umount2(argument[0], MNT_DETACH);
    errno = kept;
    return result;
}

// Makes a layer of the root show another directory of the host's, once it is mounted again.
static long redirect_layer(char **argument) {
    if (mkdir(argument[0], 0700) < 0 && errno != EEXIST)
        return -1;
    long result = setxattr(argument[0], "trusted.overlay.redirect", "/etc", 4, 0);
    int kept = errno;
    rmdir(argument[0]);
    errno = kept;
    return result;
}

// Leaves the container's limits by moving to the top of the hierarchy.
static long leave_cgroup(char **argument) {
    return overwrite(argument[0], "0");
}

int main(int argc, char **argv) {
    static const struct attack attacks[] = {
        {"mount", mount_tmpfs},
        {"mount_api", mount_api},
        {"open_tree", open_tree_clone},
        {"umount", unmount},
        {"remount", remount},
        {"mount_setattr", set_attributes},
        {"pivot_root", pivot},
        {"chroot_escape", chroot_escape},
        {"make_device", make_device},
        {"open_by_handle", handle},
        {"release_agent", release_agent},
        {"binary_format", binary_format},
        {"redirect_layer", redirect_layer},
        {"leave_cgroup", leave_cgroup},
        {0},
    };
    return attack_main(attacks, argc, argv);
}
