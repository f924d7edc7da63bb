// Attacks that reach for files, sockets and devices of the host.
#include "attack.h"
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/if_alg.h>
#include <linux/if_ether.h>
#include <linux/netlink.h>
#include <linux/vm_sockets.h>
#include <mqueue.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <signal.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/un.h>

static long read_file(char **argument) {
    char buffer[64];
    return read_some(argument[0], buffer, sizeof buffer);
}

static long open_for_writing(char **argument) {
    return open(argument[0], O_WRONLY);
}

// Writes back what the file holds, so that nothing changes where it is allowed.
static long write_back(char **argument) {
    char buffer[4096];
    if (read_some(argument[0], buffer, sizeof buffer) < 0)
        return -1;
    return overwrite(argument[0], buffer);
}

static long write_text(char **argument) {
    return overwrite(argument[0], argument[1]);
}

static long raw_socket(char **argument) {
    (void)argument;
    return socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
}

static long packet_socket(char **argument) {
    (void)argument;
    return socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
}

// A way to the machine below, where this one is virtual.
static long vm_socket(char **argument) {
    (void)argument;
    return socket(AF_VSOCK, SOCK_STREAM, 0);
}

// Makes the kernel load ciphers that it had not, and work with them.
static long kernel_crypto(char **argument) {
    (void)argument;
    struct sockaddr_alg address = {.salg_family = AF_ALG, .salg_type = "hash", .salg_name = "sha256"};
    int fd = socket(AF_ALG, SOCK_SEQPACKET, 0);
    if (fd < 0)
        return -1;
    return bind(fd, (struct sockaddr *)&address, sizeof address);
}

// Hears of the devices that come and go.
static long kernel_events(char **argument) {
    (void)argument;
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = 1};
    int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_KOBJECT_UEVENT);
    if (fd < 0)
        return -1;
    return bind(fd, (struct sockaddr *)&address, sizeof address);
}

// Sets the loopback device to what it is.
static long configure_network(char **argument) {
    (void)argument;
    struct ifreq request = {.ifr_name = "lo"};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &request) < 0)
        return -1;
    return ioctl(fd, SIOCSIFFLAGS, &request);
}

// Whether there is a way to an address; nothing is sent.
static long find_way(char **argument) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(80)};
    inet_pton(AF_INET, argument[0], &address.sin_addr);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0)
        return -1;
    return connect(fd, (struct sockaddr *)&address, sizeof address);
}

// Says something to every listening socket whose abstract name begins so; an answer is the success.
static long answering_socket(char **argument) {
    char line[512], name[256];
    long found = -1;
    FILE *list = fopen("/proc/net/unix", "r");
    if (!list)
        return -1;
    errno = ENOENT;
    while (found < 0 && fgets(line, sizeof line, list)) {
        if (sscanf(line, "%*s %*s %*s %*s %*s %*s %*s @%255s", name) != 1)
            continue;
        if (strncmp(name, argument[0], strlen(argument[0])) != 0)
            continue;
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        struct timeval patience = {.tv_sec = 2};
        char answer;
        size_t length = strnlen(name, sizeof address.sun_path - 1);
        memcpy(address.sun_path + 1, name, length);
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
        if (connect(fd, (struct sockaddr *)&address, size) < 0)
            continue;
        // One that answers unasked may be gone already, and its answer is there.
        send(fd, "hello\n", 6, MSG_NOSIGNAL);
        long got = read(fd, &answer, 1);
        if (got == 1)
            found = 0;
        else if (got == 0)
            errno = ECONNRESET;
        close(fd);
    }
    int kept = errno;
    fclose(list);
    errno = kept;
    return found;
}

// Not an attack but its aim: says where others find this machine, loopback where there is no more.
static long own_address(char **argument) {
    (void)argument;
    char text[INET_ADDRSTRLEN] = "127.0.0.1";
    struct ifaddrs *all;
    if (getifaddrs(&all) < 0)
        return -1;
    for (struct ifaddrs *one = all; one; one = one->ifa_next) {
        if (!one->ifa_addr || one->ifa_addr->sa_family != AF_INET || (one->ifa_flags & IFF_LOOPBACK))
            continue;
        inet_ntop(AF_INET, &((struct sockaddr_in *)one->ifa_addr)->sin_addr, text, sizeof text);
    }
    printf("%s ", text);
    freeifaddrs(all);
    return 0;
}

static long shared_memory(char **argument) {
    return shmget((key_t)strtol(argument[0], NULL, 0), 0, 0);
}

static long shared_memory_file(char **argument) {
    return shm_open(argument[0], O_RDWR, 0);
}

static long message_queue(char **argument) {
    return mq_open(argument[0], O_RDONLY);
}

// Not an attack but its aim: what processes share by name, up to the end of the input, and a socket
// that answers.
static long offer_until_end(char **argument) {
    int key = (int)strtol(argument[0], NULL, 0);
    int segment = shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0666);
    int file = shm_open(argument[1], O_RDWR | O_CREAT, 0666);
    mqd_t queue = mq_open(argument[1], O_RDONLY | O_CREAT, 0666, NULL);
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    size_t length = strlen(argument[2]);
    memcpy(name.sun_path + 1, argument[2], length);
    int local = socket(AF_UNIX, SOCK_STREAM, 0);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
    long result = segment < 0 || file < 0 || queue < 0 ? -1 : 0;
    if (result == 0 && (bind(local, (struct sockaddr *)&name, size) < 0 || listen(local, 8) < 0))
        result = -1;
    int kept = errno;
    pid_t answering = result < 0 ? -1 : fork();
    if (answering == 0)
        for (;;) {
            int caller = accept(local, NULL, NULL);
            if (write(caller, "hello\n", 6) < 0)
                close(caller);
            close(caller);
        }
    if (result == 0) {
        puts("ready");
        fflush(stdout);
        char byte;
        if (read(0, &byte, 1) < 0)
            kept = errno;
        kill(answering, SIGKILL);
    }
    shmctl(segment, IPC_RMID, NULL);
    shm_unlink(argument[1]);
    mq_unlink(argument[1]);
    errno = kept;
    return result;
}

// Connects to a socket of the host's: `@name` is in the abstract space.
static long unix_socket(char **argument) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(argument[0]);
    memcpy(address.sun_path, argument[0], length);
    if (argument[0][0] == '@')
        address.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0)
        return -1;
    return connect(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length));
}

static long tcp(char **argument) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argument[1]))};
    // Where packets are dropped, the kernel alone would try for minutes.
    struct timeval patience = {.tv_sec = 3};
    inet_pton(AF_INET, argument[0], &address.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    long result = connect(fd, (struct sockaddr *)&address, sizeof address);
    return result < 0 && errno == EINPROGRESS ? fail(ETIMEDOUT) : result;
}

// Not an attack but its aim: listens on an abstract socket and a port, up to the end of its input.
static long listen_until_end(char **argument) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    size_t length = strlen(argument[0]);
    memcpy(name.sun_path + 1, argument[0], length);
    struct sockaddr_in port = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argument[1]))};
    port.sin_addr.s_addr = htonl(INADDR_ANY);
    int local = socket(AF_UNIX, SOCK_STREAM, 0), remote = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
    if (bind(local, (struct sockaddr *)&name, size) < 0 || listen(local, 8) < 0)
        return -1;
    if (bind(remote, (struct sockaddr *)&port, sizeof port) < 0 || listen(remote, 8) < 0)
        return -1;
    puts("ready");
    fflush(stdout);
    char byte;
    return read(0, &byte, 1);
}

int main(int argc, char **argv) {
    static const struct attack attacks[] = {
        {"read_file", read_file},
        {"open_for_writing", open_for_writing},
        {"write_back", write_back},
        {"raw_socket", raw_socket},
        {"packet_socket", packet_socket},
        {"vm_socket", vm_socket},
        {"kernel_crypto", kernel_crypto},
        {"kernel_events", kernel_events},
        {"configure_network", configure_network},
        {"find_way", find_way},
        {"answering_socket", answering_socket},
        {"shared_memory", shared_memory},
        {"shared_memory_file", shared_memory_file},
        {"message_queue", message_queue},
        {"offer", offer_until_end},
        {"own_address", own_address},
        {"write_text", write_text},
        {"unix_socket", unix_socket},
        {"tcp", tcp},
        {"listen", listen_until_end},
        {0},
    };
    return attack_main(attacks, argc, argv);
}
