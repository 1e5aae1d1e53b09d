// Matches each image of the topic `image` with the one before it, and publishes `~/matches` as matchrt_ros does: a
// PointCloud2 with the fields x0, y0, x1, y1 (pixels) and score, best first, under the newer image's header.
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <rclcpp/rclcpp.hpp>
#include <sensor_msgs/msg/image.hpp>
#include <sensor_msgs/msg/point_cloud2.hpp>
#include <sensor_msgs/msg/point_field.hpp>

#include "matchrt/engine.h"

namespace {

using sensor_msgs::msg::Image;
using sensor_msgs::msg::PointCloud2;
using sensor_msgs::msg::PointField;

// The pixels of an image without the padding of its rows.
struct Pixels {
  std::vector<std::uint8_t> bytes;
  std::int64_t height = 0, width = 0, channels = 0;

  matchrt::ImageView view() const { return {bytes.data(), height, width, channels}; }
};

// Grey for engines of one channel, RGB for those of three. Throws matchrt::Error image-array.
Pixels pixels_of(const Image& image, std::int64_t channels) {
  const bool grey = image.encoding == "mono8" || image.encoding == "8UC1";
  const bool bgr = image.encoding == "bgr8";
  if (channels == 1 ? !grey : !(bgr || image.encoding == "rgb8")) {
    throw matchrt::Error("image-array", "the encoding is " + image.encoding + ", and the engine takes " +
                                            (channels == 1 ? "mono8" : "rgb8 or bgr8"));
  }
  const std::size_t row = static_cast<std::size_t>(image.width) * static_cast<std::size_t>(channels);
  const std::size_t step = image.step == 0 ? row : image.step;
  if (image.height == 0 || image.width == 0 || step < row || image.data.size() < step * (image.height - 1) + row) {
    throw matchrt::Error("image-array", "the bytes do not fit height, width and step");
  }
  Pixels found;
  found.bytes.resize(row * image.height);
  for (std::size_t y = 0; y < image.height; ++y) {
    std::memcpy(&found.bytes[y * row], &image.data[y * step], row);
  }
  if (bgr) {
    for (std::size_t i = 0; i < found.bytes.size(); i += 3) std::swap(found.bytes[i], found.bytes[i + 2]);
  }
  found.height = image.height;
  found.width = image.width;
  found.channels = channels;
  return found;
}

PointCloud2 cloud_of(const matchrt::Matches& found) {
  static const char* const names[] = {"x0", "y0", "x1", "y1", "score"};
  PointCloud2 cloud;
  for (std::uint32_t i = 0; i < 5; ++i) {
    PointField field;
    field.name = names[i];
    field.offset = 4 * i;
    field.datatype = PointField::FLOAT32;
    field.count = 1;
    cloud.fields.push_back(field);
  }
  cloud.height = 1;
  cloud.width = static_cast<std::uint32_t>(found.scores.size());
  const std::uint32_t one = 1;
  cloud.is_bigendian = *reinterpret_cast<const std::uint8_t*>(&one) == 0;
  cloud.is_dense = true;
  cloud.point_step = 20;
  cloud.row_step = 20 * cloud.width;
  cloud.data.resize(cloud.row_step);
  for (std::size_t i = 0; i < found.scores.size(); ++i) {
    const float values[] = {found.keypoints0[i].x, found.keypoints0[i].y, found.keypoints1[i].x, found.keypoints1[i].y,
                            found.scores[i]};
    std::memcpy(&cloud.data[20 * i], values, sizeof values);
  }
  return cloud;
}

class MatchNode : public rclcpp::Node {
 public:
  MatchNode()
      : Node("matchrt"),
        engine_(declare_parameter<std::string>("engine")),
        min_score_(static_cast<float>(declare_parameter<double>("min_score", -1.0))) {
    // Depth 1: when the engine is slower than the camera, the newest image is matched and the others are dropped.
    matches_ = create_publisher<PointCloud2>("~/matches", rclcpp::QoS(1));
    images_ = create_subscription<Image>("image", rclcpp::SensorDataQoS().keep_last(1),
                                         [this](Image::ConstSharedPtr image) { take(*image); });
  }

 private:
  void take(const Image& image) {
    try {
      Pixels now = pixels_of(image, engine_.manifest().image_channels());
      if (!last_.bytes.empty()) {
        PointCloud2 cloud = cloud_of(engine_.match(last_.view(), now.view(), min_score_));
        cloud.header = image.header;
        matches_->publish(cloud);
      }
      last_ = std::move(now);
    } catch (const matchrt::Error& error) {
      RCLCPP_ERROR_THROTTLE(get_logger(), *get_clock(), 1000, "%s: %s", error.code.c_str(), error.what());
    }
  }

  matchrt::Engine engine_;
  float min_score_;
  Pixels last_;
  rclcpp::Publisher<PointCloud2>::SharedPtr matches_;
  rclcpp::Subscription<Image>::SharedPtr images_;
};

}  // namespace

int main(int count, char** values) {
  rclcpp::init(count, values);
  int code = 0;
  try {
    rclcpp::spin(std::make_shared<MatchNode>());
  } catch (const matchrt::Error& error) {
    RCLCPP_FATAL(rclcpp::get_logger("matchrt"), "%s: %s", error.code.c_str(), error.what());
    code = 2;
  }
  rclcpp::shutdown();
  return code;
}
