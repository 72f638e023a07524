#!/bin/sh
# rabbitmq-cluster.sh install DATA | serve DATA PORT EPMD_PORT DIST_PORT IP PEERS QUEUE_TYPE: a RabbitMQ node with its
# data below DATA. Together with the PEERS (b=10.0.0.2,c=10.0.0.3) it is a cluster with one durable queue, which has a
# member on every node. A node accepts clients when the queue is made, and all its files on this node are synced.
set -eu
what="$1"
home="$2/rabbitmq"

# configure PORT EPMD_PORT DIST_PORT IP PEERS
configure() {
  me="plugpull@$4"
  ips="$4 $(echo "$5" | tr , '\n' | sed 's/.*=//' | tr '\n' ' ')"
  # shellcheck disable=SC2086 # the addresses are words
  first="$(printf '%s\n' $ips | sort -V | head -n 1)"
  number=0
  {
    for ip in $ips; do
      number=$((number + 1))
      echo "cluster_formation.classic_config.nodes.$number = plugpull@$ip"
    done
    if [ -e "$home/made" ]; then echo "listeners.tcp.1 = $4:$1"; else echo 'listeners.tcp = none'; fi
    cat << CONF
cluster_formation.peer_discovery_backend = classic_config
cluster_partition_handling = pause_minority
# With the default of 60 s, the clients of the majority wait for an isolated leader for more than a minute.
net_ticktime = 5
loopback_users = none
log.console = true
log.console.level = warning
log.file = false
CONF
  } > "$home/rabbitmq.conf"
  echo '[].' > "$home/enabled_plugins"
  # Three nodes share the cores: their schedulers must not spin while they wait.
  export HOME="$home" \
    ERL_EPMD_PORT="$2" ERL_EPMD_ADDRESS="$4" \
    RABBITMQ_USE_LONGNAME=true RABBITMQ_NODENAME="$me" RABBITMQ_DIST_PORT="$3" \
    RABBITMQ_CONFIG_FILE="$home/rabbitmq.conf" RABBITMQ_ENABLED_PLUGINS_FILE="$home/enabled_plugins" \
    RABBITMQ_MNESIA_BASE="$home/mnesia" RABBITMQ_LOG_BASE="$home/log" RABBITMQ_LOGS=- \
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {$(echo "$4" | tr . ,)} +sbwt none +sbwtdcpu none +sbwtdio none"
}

# ask NODE ERLANG: prints what the node answers to these expressions; nothing while it does not answer.
ask() { echo "$2" | erl_call -timeout 10 -name "$1" -c "$(cat "$home/.erlang.cookie")" -e 2> /dev/null || true; }

# has_answered TEXT NODE ERLANG
has_answered() { ask "$2" "$3" | grep -q "$1"; }

# Makes the queue on the first node, when the others run. Each node waits until the queue has all its members, syncs
# its files, and then accepts clients: an operator makes a queue long before it matters.
# make_queue PORT IP QUEUE_TYPE
make_queue() {
  name='Name = rabbit_misc:r(<<"/">>, queue, <<"plugpull">>),'
  if [ "$2" = "$first" ]; then
    until has_answered "{ok, $number}" "$me" 'length(rabbit_nodes:all_running()).'; do sleep 0.3; done
    ask "$me" "$name rabbit_amqqueue:declare(Name, true, false, [{<<\"x-queue-type\">>, longstr, <<\"$3\">>}], none, <<\"guest\">>), ok."
  fi
  until has_answered "{ok, $number}" "$me" "$name {ok, Queue} = rabbit_amqqueue:lookup(Name),
      [{online, Members}] = rabbit_amqqueue:info(Queue, [online]), length(Members)."; do sleep 0.3; done
  sync -f "$home"
  touch "$home/made"
  sync "$home/made" "$home"
  ask "$me" "rabbit_networking:start_tcp_listener({\"$2\", $1}, 10)."
}

case "$what" in
  install)
    mkdir "$home"
    # All nodes need the same cookie. Erlang would make one at its first start, and not sync it.
    echo PLUGPULLPLUGPULL > "$home/.erlang.cookie"
    chmod 400 "$home/.erlang.cookie"
    sync "$home/.erlang.cookie" "$home" "$2"
    ;;
  serve)
    shift 2
    configure "$@"
    if [ ! -e "$home/made" ]; then
      # Nodes that start at the same time may each begin a cluster of their own.
      until [ "$4" = "$first" ] || has_answered '{ok, true}' "plugpull@$first" 'rabbit:is_running().'; do sleep 0.3; done
      make_queue "$1" "$4" "$6" > /dev/null &
    fi
    exec /usr/lib/rabbitmq/bin/rabbitmq-server
    ;;
esac
