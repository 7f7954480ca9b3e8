"""A ROS 2 node that does what its parent process says. Started by `envs.ros.rclpy_bus` as `python envs/ros/node`.

It runs in ROS's own Python environment and imports nothing of the project but the two files beside this one, because
ROS's libraries and the project's do not mix. Commands are carried out on the thread that reads them rather than on the
executor's: a busy executor would delay them.
"""

from __future__ import annotations

import os
import queue
import socket
import sys
import threading
from itertools import count
from typing import Any

import rclpy
from action_msgs.srv import CancelGoal
from conversion import fill, interface, to_dict
from rclpy.action import ActionClient, ActionServer, CancelResponse, GoalResponse
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from wire import Link

SERVER_WAIT = 2.0  # seconds to wait for an action's server before a goal is given up
ANSWER_WAIT = 1.0  # seconds that the parent has to say whether it takes a goal
ENDS = {4: "succeeded", 5: "canceled", 6: "aborted"}  # action_msgs/GoalStatus
PICTURES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
# What comes again in a moment, and whose drivers may send it as best effort only.
STREAMS = (*PICTURES, "sensor_msgs/msg/CameraInfo", "sensor_msgs/msg/JointState", "tf2_msgs/msg/TFMessage")


class Relay:
    """Turns the parent's frames into ROS calls (one method `do_…` each) and ROS's callbacks into frames."""

    def __init__(self, node: Node, executor: SingleThreadedExecutor, parent: Link) -> None:
        self._node, self._executor, self._parent = node, executor, parent
        self._publishers: dict[str, Any] = {}
        self._kept: list[Any] = []  # subscriptions and servers
        self._clients: dict[str, ActionClient] = {}
        self._cancellers: dict[str, Any] = {}
        self._handles: dict[int, Any] = {}  # goals sent from here that were accepted
        self._canceled: set[int] = set()
        self._questions: dict[int, queue.Queue] = {}  # goals of others: whether to take them
        self._served: dict[int, Any] = {}
        self._numbers = count(1)

    def obey(self) -> None:
        """Until the parent goes."""
        while (frame := self._parent.receive()) is not None:
            op = frame.pop("op")
            try:
                getattr(self, f"do_{op}")(**frame)
            except Exception as error:  # told to the parent, which knows what it asked for
                words = f"{type(error).__name__}: {error}"
                self._parent.send("problem", kind=frame.get("topic") or frame.get("action") or op, words=words)
                if op == "send_goal":
                    self._end(frame["id"], "lost", reason=words)

    def do_subscribe(self, topic: str, type: str, latched: bool) -> None:
        def listen(message: Any) -> None:
            if type in PICTURES:
                self._parent.send_newest(topic, "message", topic=topic, message=to_dict(message))
            else:
                self._parent.send("message", topic=topic, message=to_dict(message))

        # Best effort takes what both kinds of publisher send. A latched topic is listened to in both ways, because its
        # publisher may not latch, and an emergency stop must be heard all the same.
        depth = 100 if type == "tf2_msgs/msg/TFMessage" else 5
        best_effort = latched or type in STREAMS
        reliability = ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE
        profiles = [QoSProfile(depth=depth, reliability=reliability)]
        if latched:
            profiles.append(QoSProfile(depth=depth, durability=DurabilityPolicy.TRANSIENT_LOCAL))
        for profile in profiles:
            self._kept.append(self._node.create_subscription(interface(type), topic, listen, profile))
        self._executor.wake()

    def do_advertise(self, topic: str, type: str, latched: bool) -> None:
        if topic not in self._publishers:
            durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
            profile = QoSProfile(depth=1 if latched else 10, durability=durability)
            self._publishers[topic] = self._node.create_publisher(interface(type), topic, profile)

    def do_publish(self, topic: str, type: str, latched: bool, message: dict[str, Any]) -> None:
        self.do_advertise(topic, type, latched)
        self._publishers[topic].publish(fill(interface(type)(), message))

    def do_prepare_action(self, action: str, type: str) -> None:
        """Look for an action's server, so that the first goal need not."""
        if action not in self._clients:
            self._clients[action] = ActionClient(self._node, interface(type), action)

    def do_send_goal(self, id: int, action: str, type: str, goal: dict[str, Any]) -> None:
        content = fill(interface(type).Goal(), goal)
        self.do_prepare_action(action, type)
        client = self._clients[action]
        # On a thread of its own: a server that is not there must not keep a cancellation or a stop waiting.
        threading.Thread(target=self._send, args=(id, action, client, content), daemon=True).start()

    def _send(self, id: int, action: str, client: ActionClient, content: Any) -> None:
        if not client.server_is_ready() and not client.wait_for_server(SERVER_WAIT):
            self._end(id, "lost", reason=f"the action {action} has no server")
        elif id in self._canceled:
            self._end(id, "canceled", reason="cancelled before it was sent")
        else:

            def tell(feedback: Any) -> None:
                self._parent.send("goal_feedback", id=id, values=to_dict(feedback.feedback))

            sent = client.send_goal_async(content, tell)
            sent.add_done_callback(lambda future: self._answered(id, future.result()))

    def _answered(self, id: int, handle: Any) -> None:
        if not handle.accepted:
            self._end(id, "rejected", reason="the action's server rejected it")
            return
        self._handles[id] = handle
        self._parent.send("goal_state", id=id, state="accepted", result={}, reason="")
        handle.get_result_async().add_done_callback(lambda future: self._finished(id, future.result()))
        if id in self._canceled:  # asked for in the meantime
            handle.cancel_goal_async()

    def _finished(self, id: int, answer: Any) -> None:
        self._end(id, ENDS.get(answer.status, "lost"), to_dict(answer.result))

    def _end(self, id: int, state: str, result: dict[str, Any] | None = None, reason: str = "") -> None:
        self._handles.pop(id, None)
        self._canceled.discard(id)
        self._parent.send("goal_state", id=id, state=state, result=result or {}, reason=reason)

    def do_cancel_goal(self, id: int) -> None:
        self._canceled.add(id)
        if id in self._handles:
            self._handles[id].cancel_goal_async()

    def do_cancel_all(self, action: str) -> None:
        if action not in self._cancellers:
            service = f"{action}/_action/cancel_goal"
            self._cancellers[action] = self._node.create_client(CancelGoal, service)
        if self._cancellers[action].service_is_ready():  # if not, the parent asks again
            self._cancellers[action].call_async(CancelGoal.Request())  # without a goal's id and time: all of them

    def do_serve(self, action: str, type: str) -> None:
        taken: list[int] = []  # the number of the goal that is being accepted: one at a time on the executor's thread

        def ask(request: Any) -> GoalResponse:
            number = next(self._numbers)
            self._questions[number] = queue.Queue()
            self._parent.send("goal_request", id=number, action=action, goal=to_dict(request))
            try:
                accepted = self._questions[number].get(timeout=ANSWER_WAIT)
            except queue.Empty:
                accepted = False
            del self._questions[number]
            if accepted:
                taken.append(number)
            return GoalResponse.ACCEPT if accepted else GoalResponse.REJECT

        def begin(handle: Any) -> None:
            # Not handle.execute(): that runs when the parent ends the goal, so that no thread waits for it here.
            number = taken.pop()
            self._served[number] = handle
            self._parent.send("goal_begun", id=number)

        def cancel(handle: Any) -> CancelResponse:
            for number, served in self._served.items():
                if bytes(served.goal_id.uuid) == bytes(handle.goal_id.uuid):
                    self._parent.send("cancel_request", id=number)
            return CancelResponse.ACCEPT

        def unused(handle: Any) -> Any:
            raise RuntimeError("goals are executed by do_end_goal")

        self._kept.append(
            ActionServer(
                self._node,
                interface(type),
                action,
                unused,
                goal_callback=ask,
                handle_accepted_callback=begin,
                cancel_callback=cancel,
            )
        )
        self._executor.wake()

    def do_answer(self, id: int, accepted: bool) -> None:
        if id in self._questions:
            self._questions[id].put(accepted)

    def do_end_goal(self, id: int, type: str, state: str, result: dict[str, Any]) -> None:
        outcome = fill(interface(type).Result(), result)

        def finish(handle: Any) -> Any:
            {"succeeded": handle.succeed, "canceled": handle.canceled, "aborted": handle.abort}[state]()
            return outcome

        self._served.pop(id).execute(finish)

    def do_feedback(self, id: int, type: str, values: dict[str, Any]) -> None:
        if id in self._served:
            self._served[id].publish_feedback(fill(interface(type).Feedback(), values))


def main() -> None:
    """Obey the parent: `python envs/ros/node SOCKET NAME` with the number of an open socket and the node's name."""
    parent = Link(socket.socket(fileno=int(sys.argv[1])))
    rclpy.init(args=[])
    node = Node(sys.argv[2])
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def spin() -> None:
        try:
            executor.spin()
        except (ExternalShutdownException, KeyboardInterrupt):
            pass
        except BaseException as error:
            print(f"the executor failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)  # without it nothing is heard any more: the parent must see that at once

    threading.Thread(target=spin, daemon=True).start()
    parent.send("ready")
    try:
        Relay(node, executor, parent).obey()
    except KeyboardInterrupt:
        pass
    os._exit(0)  # ROS's own threads have nothing left to say


if __name__ == "__main__":
    main()
