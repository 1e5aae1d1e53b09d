// A stand-in with the fields of the message sensor_msgs/PointField.
#pragma once
#include <cstdint>
#include <string>

namespace sensor_msgs::msg {
struct PointField {
  static constexpr std::uint8_t FLOAT32 = 7;
  std::string name;
  std::uint32_t offset = 0;
  std::uint8_t datatype = 0;
  std::uint32_t count = 0;
};
}  // namespace sensor_msgs::msg
