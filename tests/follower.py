"""Another program that keeps a table of its own, through the endpoint alone: `follower.py HOST:PORT TABLE`.

Subscribes, reads every page of the table, and applies changes until one of a row whose key is -1 comes. After 20
changes or more it hangs up and comes back with the last event's id, and says so on stderr. Prints its rows, one a line, sorted by key.
"""

import http.client
import json
import sys

address, table = sys.argv[1:]
rows, done = {}, False


def identity(row):
    return json.dumps(row["key"], sort_keys=True)


def fill():
    path = f"/tables/{table}?typed=1&limit=50"
    while path:
        connection = http.client.HTTPConnection(address, timeout=60)
        connection.request("GET", path)
        page = json.load(connection.getresponse())
        rows.update((identity(row), row["row"]) for row in page["rows"])
        path = page["next"]


def events(last_id):
    connection = http.client.HTTPConnection(address, timeout=60)
    headers = {"Last-Event-ID": last_id} if last_id else {}
    connection.request("GET", "/changes?typed=1", headers=headers)
    answer = connection.getresponse()
    if answer.status != 200:
        sys.exit(f"{answer.status}: {answer.read().decode()}")
    event = {}
    for line in answer:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name:
            event[name] = value
        elif event.get("event"):
            yield event
            event = {}


last_id, filled = None, False
while not done:
    taken, begun = 0, last_id
    for event in events(last_id):
        last_id = event.get("id", last_id)
        if not filled:
            filled = True
            fill()
        if event["event"] == "error":
            sys.exit(event["data"])
        if event["event"] != "change":
            continue
        change = json.loads(event["data"])
        source, taken = change["source"], taken + 1
        if source["table"] != table:
            continue
        if change["op"] == "d":
            rows.pop(identity(source), None)
        else:
            rows[identity(source)] = change["after"]
        if source["key"][0]["value"] == "-1":
            done = True
            break
        # Changes of one window share the position before it: only behind it does coming back bring anything new.
        if taken >= 20 and last_id != begun:
            print("back", file=sys.stderr, flush=True)
            break

for key in sorted(rows, key=lambda key: int(json.loads(key)[0]["value"])):
    print(json.dumps(rows[key]))
