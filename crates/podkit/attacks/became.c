// Says what it became by being run: it does nothing else, so that a set-id copy of it may lie about.
#include "attack.h"
#include <linux/capability.h>

static long root(char **argument) {
    (void)argument;
    return geteuid() == 0 ? 0 : fail(EPERM);
}

static long capable(char **argument) {
    (void)argument;
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data) < 0)
        return -1;
    return data[0].effective & (1u << CAP_CHOWN) ? 0 : fail(EPERM);
}

int main(int argc, char **argv) {
    static const struct attack attacks[] = {
        {"root", root},
        {"capable", capable},
        {0},
    };
    return attack_main(attacks, argc, argv);
}
