/* Forks at any moment: while engines and connections are made, while a log line is written, and by calls that run no
 * hooks. The child keeps no socket of ours, can make an engine of its own, and its signals are not its parent's. */
#include <pthread.h>
#include <semaphore.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "peer.h"

#define ROUNDS 40
#define FORKS 150
#define MOST_FDS 1024
#define CHILD_SECONDS 20
#define LEFT_SOCKETS 1
#define NO_ENGINE 2

static transfer_engine_t engine;

/* `fork` without the hooks of pthread_atfork. */
static pid_t bare_fork(void) { return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL); }

/* What a child is told to do by `kill` before it has run a single instruction. */
static int signals_of_children(void) {
    harness_begin();
    engine = engine_open();
    enableGracefulShutdown(engine);
    int wrong = 0;
    for (int i = 0; i < ROUNDS; i++) {
        fflush(NULL);
        pid_t child = i % 2 == 0 ? fork() : bare_fork();
        if (child == 0) {
            alarm(CHILD_SECONDS);
            for (;;) pause();
        }
        kill(child, i % 4 < 2 ? SIGTERM : SIGINT);
        int status = child_reap(child, 5000);
        wrong += status < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 128 + (i % 4 < 2 ? SIGTERM : SIGINT);
    }
    CHECK_EQ("children that are signalled at once end by that", wrong, 0);
    pid_t child = fork();
    if (child == 0) {
        enableGracefulShutdown(engine_open());
        kill(getpid(), SIGTERM);
        for (;;) pause();
    }
    int status = child_reap(child, 20000);
    CHECK_EQ("a child with an engine of its own shuts down by itself", status < 0 ? status : WEXITSTATUS(status), 143);
    destroyTransferEngine(engine);
    return harness_finish();
}

static void their_parent_lives(void) {
    fflush(NULL);
    pid_t parent = fork();
    if (parent == 0) {
        execl("/proc/self/exe", "forks", "--graceful", (char *)NULL);
        _exit(127);
    }
    CHECK_EQ("signals of children do not end the parent", child_reap(parent, 60000), 0);
}

/* Whoever writes to standard error while `held` waits in here, as with a full pipe. */
static atomic_bool held;
static sem_t inside, release;

ssize_t write(int fd, const void *bytes, size_t len) {
    if (fd == STDERR_FILENO && atomic_load(&held)) {
        sem_post(&inside);
        while (sem_wait(&release) != 0) continue;
    }
    return syscall(SYS_write, fd, bytes, len);
}

static void *make_engine(void *unused) {
    (void)unused;
    destroyTransferEngine(engine_open());
    return NULL;
}

static int logging(void) {
    alarm(WATCHDOG_SECONDS);
    pthread_t thread;
    sem_init(&inside, 0, 0);
    sem_init(&release, 0, 0);
    atomic_store(&held, true);
    if (pthread_create(&thread, NULL, make_engine, NULL) != 0) return 1;
    while (sem_wait(&inside) != 0) continue;
    pid_t child = fork();
    if (child == 0) {
        atomic_store(&held, false);
        alarm(CHILD_SECONDS);
        transfer_engine_t made = engine_open();
        destroyTransferEngine(made);
        _exit(0);
    }
    int status = child_reap(child, (CHILD_SECONDS + 5) * 1000);
    atomic_store(&held, false);
    for (int i = 0; i < 100; i++) sem_post(&release);
    pthread_join(thread, NULL);
    return status != 0;
}

/* A thread is in the middle of a line of the log: at the default level, and as if its reader were slow. */
static void nobody_waits_for_a_line(void) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, STDERR_FILENO);
        unsetenv("MC_LOG_LEVEL");
        execl("/proc/self/exe", "forks", "--logging", (char *)NULL);
        _exit(127);
    }
    CHECK_EQ("a child of a process that is writing a log line makes an engine", child_reap(pid, 60000), 0);
}

/* Allowed in a child of many threads, unlike a look into /proc. */
static int sockets(void) {
    int count = 0;
    struct stat info;
    for (int fd = 0; fd < MOST_FDS; fd++) count += fstat(fd, &info) == 0 && S_ISSOCK(info.st_mode);
    return count;
}

static atomic_bool enough;

static void *engines_come_and_go(void *unused) {
    (void)unused;
    while (!atomic_load(&enough)) destroyTransferEngine(engine_open());
    return NULL;
}

/* With a connection per request, one is made all the time, at both ends. */
static void *connections_come_and_go(void *unused) {
    (void)unused;
    char name[128];
    transfer_engine_t mine = engine_open(), other = engine_open();
    unsigned char *from = registered_bytes(mine, 4096), *to = registered_bytes(other, 4096);
    engine_name(other, name, sizeof name);
    segment_id_t target = openSegment(mine, name);
    while (!atomic_load(&enough)) {
        transfer_once(mine, request(OPCODE_WRITE, from, target, (uintptr_t)to, 64), 20000);
        openSegmentNoCache(mine, name);
    }
    destroyTransferEngine(mine);
    destroyTransferEngine(other);
    return NULL;
}

static int in_child(int before) {
    alarm(CHILD_SECONDS);
    if (sockets() != before) return LEFT_SOCKETS;
#ifndef __SANITIZE_ADDRESS__ /* Its allocator does not survive a fork of many threads. */
    transfer_engine_t made = createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 0);
    if (made == NULL || installTransport(made, "tcp", NULL) == NULL) return NO_ENGINE;
    destroyTransferEngine(made);
#endif
    return 0;
}

static int in_the_middle(void) {
    harness_begin();
    pthread_t threads[3];
    int before = sockets(), left = 0, failed = 0, hung = 0;
    engine = engine_open();
    pthread_create(&threads[0], NULL, engines_come_and_go, NULL);
    pthread_create(&threads[1], NULL, connections_come_and_go, NULL);
    pthread_create(&threads[2], NULL, connections_come_and_go, NULL);
    for (int i = 0; i < FORKS; i++) {
        pid_t child = fork();
        if (child == 0) _exit(in_child(before));
        int status = child_reap(child, (CHILD_SECONDS + 5) * 1000);
        left += status >= 0 && WIFEXITED(status) && WEXITSTATUS(status) == LEFT_SOCKETS;
        failed += status >= 0 && WIFEXITED(status) && WEXITSTATUS(status) == NO_ENGINE;
        hung += status < 0 || !WIFEXITED(status);
    }
    atomic_store(&enough, true);
    for (size_t i = 0; i < COUNT(threads); i++) pthread_join(threads[i], NULL);
    CHECK_EQ("no child keeps a socket of an engine that is being set up", left, 0);
    CHECK_EQ("every child can make an engine", failed, 0);
    CHECK_EQ("and none hangs", hung, 0);
    destroyTransferEngine(engine);
    return harness_finish();
}

static void forks_in_the_middle(void) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, STDERR_FILENO);
        setenv("MC_LOG_LEVEL", "INFO", 1);
        setenv("MC_TCP_ENABLE_CONNECTION_POOL", "0", 1);
        execl("/proc/self/exe", "forks", "--middle", (char *)NULL);
        _exit(127);
    }
    CHECK_EQ("forks while engines and connections come and go", child_reap(pid, 110000), 0);
}

/* A handle is refused in a child that no hook has run in. */
static void without_hooks(void) {
    char name[128] = "";
    engine = engine_open();
    fflush(NULL);
    pid_t child = bare_fork();
    if (child == 0) _exit(getLocalIpAndPort(engine, name, sizeof name) == 0 || allocateBatchID(engine, 1) != INVALID_BATCH);
    CHECK_EQ("a child that was made without hooks is refused", child_reap(child, 20000), 0);
    CHECK_EQ("its parent is not", getLocalIpAndPort(engine, name, sizeof name), 0);
    destroyTransferEngine(engine);
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "--graceful") == 0) return signals_of_children();
    if (argc == 2 && strcmp(argv[1], "--logging") == 0) return logging();
    if (argc == 2 && strcmp(argv[1], "--middle") == 0) return in_the_middle();
    harness_begin();
    without_hooks();
    their_parent_lives();
    nobody_waits_for_a_line();
    forks_in_the_middle();
    return harness_finish();
}
