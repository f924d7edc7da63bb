// Attacks that reach for files, sockets and devices of the host.
#include "attack.h"
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <stddef.h>
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
    inet_pton(AF_INET, argument[0], &address.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0)
        return -1;
    return connect(fd, (struct sockaddr *)&address, sizeof address);
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
        {"unix_socket", unix_socket},
        {"tcp", tcp},
        {"listen", listen_until_end},
        {0},
    };
    return attack_main(attacks, argc, argv);
}
