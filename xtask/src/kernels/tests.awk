# What the test harness writes of several tests in one process, as lines of the guest's protocol. The harness writes `test NAME ... ` before a test
# and `ok`, `ignored` or `FAILED` behind all that the test itself has written. `run` is the directory that init.sh reads, `kmsg` the kernel's log.
function uptime(line) {
    getline line < "/proc/uptime"
    close("/proc/uptime")
    split(line, words, " ")
    return words[1]
}
function begin(name) {
    open = name
    print "BEGIN " name
    print "guest: " name > kmsg
    close(kmsg)
    alive()
}
# For the watchdog.
function alive() {
    print systime() > (run "/begun")
    close(run "/begun")
}
function end(status) {
    # A test that writes nothing is told of when it has ended.
    now = uptime()
    print "END " open " " status " " now - since
    since = now
    print open >> (run "/done")
    close(run "/done")
    open = ""
    alive()
}
function take(text) {
    if (text == "ok" || text ~ /^ignored/) {
        end(0)
    } else if (text == "FAILED") {
        end(101)
    } else if (text != "") {
        print "|" text
    }
}
BEGIN {
    since = uptime()
}
open == "" && $1 == "test" && $3 == "..." {
    begin($2)
    take(substr($0, length("test " $2 " ... ") + 1))
    fflush()
    next
}
open != "" {
    take($0)
    fflush()
}
END {
    if (open != "") {
        print "|the process of the tests has ended within this one"
        end(137)
    }
}
