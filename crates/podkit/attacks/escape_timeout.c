// Does all that a command can do to outlive its deadline, and says `partial` first: ignores TERM,
// leaves its session by a double fork, kills its supervisor, and keeps standard output open.
#include "attack.h"
#include <signal.h>

static void stubborn(void) {
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    for (;;)
        pause();
}

int main(int argc, char **argv) {
    (void)argc;
    (void)argv;
    static const char text[] = "partial\n";
    signal(SIGTERM, SIG_IGN);
    if (write(1, text, sizeof text - 1) < 0)
        return 1;
    // A child that stays in the group.
    if (fork() == 0)
        stubborn();
    // A child of its own session, whose parent is gone.
    if (fork() == 0) {
        setsid();
        if (fork() == 0) {
            // And one that spins, forking on.
            for (int i = 0; i < 8; i++)
                if (fork() == 0)
                    stubborn();
            stubborn();
        }
        _exit(0);
    }
    // The supervisor is the parent; PID 1 ignores what its own children send.
    pid_t supervisor = getppid();
    if (fork() == 0) {
        setsid();
        kill(supervisor, SIGKILL);
        kill(supervisor, SIGSTOP);
        kill(1, SIGKILL);
        kill(1, SIGSTOP);
        stubborn();
    }
    stubborn();
}
