// A stand-in for the part of rclcpp that ros2/matchrt_ros_cpp uses, so that its source can be compiled without ROS, and run by
// a program that gives it images (tests/support/cpp/ros_node_check.cpp).
#pragma once
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#define RCLCPP_ERROR_THROTTLE(logger, clock, duration, ...) rclcpp::say(logger, clock, duration, __VA_ARGS__)
#define RCLCPP_FATAL(logger, ...) rclcpp::say(logger, 0, 0, __VA_ARGS__)

namespace rclcpp {
struct Logger {};
struct Clock {
  using SharedPtr = std::shared_ptr<Clock>;
};
template <typename ClockLike, typename... Values>
void say(const Logger&, ClockLike&&, int, const char* format, Values... values) {
  std::printf(format, values...);
  std::printf("\n");
}
inline Logger get_logger(const std::string&) { return {}; }

struct QoS {
  explicit QoS(std::size_t depth) : depth(depth) {}
  QoS& keep_last(std::size_t count) {
    depth = count;
    return *this;
  }
  std::size_t depth;
};
struct SensorDataQoS : QoS {
  SensorDataQoS() : QoS(5) {}
};

template <typename Message>
struct Publisher {
  using SharedPtr = std::shared_ptr<Publisher>;
  void publish(const Message& message) { sent.push_back(message); }
  static inline std::vector<Message> sent;
};
template <typename Message>
struct Subscription {
  using SharedPtr = std::shared_ptr<Subscription>;
  std::function<void(std::shared_ptr<const Message>)> callback;
  static inline std::weak_ptr<Subscription> newest;
};

// The parameters of the command line, and what is done while the node spins.
inline std::map<std::string, std::string> given;
inline std::function<void()> meanwhile;

class Node {
 public:
  explicit Node(const std::string&) {}
  template <typename Value>
  Value declare_parameter(const std::string&, const Value& value) {
    return value;
  }
  template <typename Value>
  Value declare_parameter(const std::string& name) {
    static_assert(std::is_same_v<Value, std::string>);
    if (given.count(name) == 0) throw std::runtime_error("parameter '" + name + "' is not initialized");
    return given[name];
  }
  template <typename Message>
  typename Publisher<Message>::SharedPtr create_publisher(const std::string&, const QoS&) {
    return std::make_shared<Publisher<Message>>();
  }
  template <typename Message, typename Callback>
  typename Subscription<Message>::SharedPtr create_subscription(const std::string&, const QoS&, Callback&& callback) {
    auto made = std::make_shared<Subscription<Message>>();
    made->callback = std::forward<Callback>(callback);
    Subscription<Message>::newest = made;
    return made;
  }
  Logger get_logger() const { return {}; }
  Clock::SharedPtr get_clock() const { return std::make_shared<Clock>(); }
};

inline void init(int, char**) {}
inline void spin(const std::shared_ptr<Node>&) {
  if (meanwhile) meanwhile();
}
inline void shutdown() {}
}  // namespace rclcpp
