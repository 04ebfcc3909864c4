package contrib_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"
	"go.yaml.in/yaml/v3"

	"github.com/reprise-containers/reprise/cache/cluster/sharedindex/redistest"
	"github.com/reprise-containers/reprise/cmd/internal/cacheconfig"
)

// object is one of Kubernetes' of any kind, as far as names in it are looked at.
type object struct {
	Kind     string
	Metadata struct{ Name string }

	Data       map[string]string
	StringData map[string]string `yaml:"stringData"`
	Spec       struct {
		ServiceName string `yaml:"serviceName"`
		ClusterIP   string `yaml:"clusterIP"`
		Selector    yaml.Node
		PodSelector selector `yaml:"podSelector"`
		Template    template
		Claims      []object `yaml:"volumeClaimTemplates"`
		Ports       []struct {
			Name       string
			Port       int
			TargetPort string `yaml:"targetPort"`
			NodePort   int    `yaml:"nodePort"`
		}
		Ingress []struct {
			From []struct {
				PodSelector selector `yaml:"podSelector"`
			}
			Ports []struct{ Port string }
		}
	}
}

type labels map[string]string

type selector struct {
	MatchLabels labels `yaml:"matchLabels"`
}

type template struct {
	Metadata struct {
		Labels      labels
		Annotations labels
	}
	Spec struct {
		Spread []struct {
			LabelSelector selector `yaml:"labelSelector"`
		} `yaml:"topologySpreadConstraints"`
		InitContainers []container `yaml:"initContainers"`
		Containers     []container
		Volumes        []struct {
			Name      string
			ConfigMap struct{ Name string } `yaml:"configMap"`
			Secret    struct {
				SecretName string `yaml:"secretName"`
			}
			Claim struct {
				ClaimName string `yaml:"claimName"`
			} `yaml:"persistentVolumeClaim"`
			HostPath yaml.Node `yaml:"hostPath"`
		}
	}
}

type container struct {
	Name    string
	Command []string
	Env     []struct {
		Name      string
		ValueFrom struct {
			SecretKeyRef struct{ Name, Key string } `yaml:"secretKeyRef"`
		} `yaml:"valueFrom"`
	}
	Ports []struct {
		Name          string
		ContainerPort int `yaml:"containerPort"`
	}
	ReadinessProbe probe `yaml:"readinessProbe"`
	LivenessProbe  probe `yaml:"livenessProbe"`
	VolumeMounts   []struct {
		Name      string
		MountPath string `yaml:"mountPath"`
	} `yaml:"volumeMounts"`
}

type probe struct {
	HTTPGet   struct{ Port string } `yaml:"httpGet"`
	TCPSocket struct{ Port string } `yaml:"tcpSocket"`
	Exec      struct{ Command []string }
}

// objects are those of one file, each of which may name another.
type objects struct {
	t    *testing.T
	name string
	all  []*object
}

func parseObjects(t *testing.T, name string, text []byte) *objects {
	t.Helper()
	o := &objects{t: t, name: name}
	for d := yaml.NewDecoder(bytes.NewReader(text)); ; {
		one := new(object)
		err := d.Decode(one)
		if errors.Is(err, io.EOF) {
			return o
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if one.Kind == "" || one.Metadata.Name == "" || o.find(one.Kind, one.Metadata.Name) != nil {
			t.Errorf("%s: %q %q has no kind or name, or is there twice", name, one.Kind, one.Metadata.Name)
		}
		o.all = append(o.all, one)
	}
}

// find returns the object of a kind and name, nil if there is none.
func (o *objects) find(kind, name string) *object {
	for _, one := range o.all {
		if one.Kind == kind && one.Metadata.Name == name {
			return one
		}
	}
	return nil
}

// need fails the test unless there is something that is named somewhere.
func (o *objects) need(ok bool, format string, args ...any) {
	o.t.Helper()
	if !ok {
		o.t.Errorf("%s: %s", o.name, fmt.Sprintf(format, args...))
	}
}

// selected returns the pods that labels select.
func (o *objects) selected(l labels) (out []*template) {
	for _, one := range o.all {
		pod := &one.Spec.Template
		has := len(l) > 0 && len(pod.Metadata.Labels) > 0
		for k, v := range l {
			has = has && pod.Metadata.Labels[k] == v
		}
		if has {
			out = append(out, pod)
		}
	}
	return out
}

// ports returns the ports of pods by name.
func ports(pods ...*template) map[string]int {
	out := map[string]int{}
	for _, pod := range pods {
		for _, c := range pod.Spec.Containers {
			for _, p := range c.Ports {
				out[p.Name] = p.ContainerPort
			}
		}
	}
	return out
}

// check looks at all names.
func (o *objects) check() {
	for _, one := range o.all {
		o.checkSelectors(one)
		o.checkPod(one)
		if text, ok := one.Data["config.yaml"]; ok {
			o.checkConfig(one.Metadata.Name, text)
		}
	}
}

func (o *objects) checkSelectors(one *object) {
	s := &one.Spec
	who := one.Kind + " " + one.Metadata.Name
	var l labels
	var of selector
	switch one.Kind {
	case "Service":
		o.need(s.Selector.Decode(&l) == nil, "%s: what does it select?", who)
	case "NetworkPolicy":
		l = s.PodSelector.MatchLabels
	case "Deployment", "StatefulSet", "DaemonSet", "PodDisruptionBudget":
		o.need(s.Selector.Decode(&of) == nil, "%s: what does it select?", who)
		l = of.MatchLabels
	default:
		return
	}
	pods := o.selected(l)
	o.need(len(pods) == 1, "%s selects %d kinds of pods by %v", who, len(pods), l)
	known := ports(pods...)
	for _, p := range s.Ports {
		o.need(known[p.TargetPort] == p.Port, "%s: port %d is %q, which the pods have at %d", who, p.Port, p.TargetPort, known[p.TargetPort])
	}
	for _, in := range s.Ingress {
		for _, p := range in.Ports {
			o.need(known[p.Port] != 0, "%s: the pods have no port %q", who, p.Port)
		}
		for _, f := range in.From {
			o.need(len(o.selected(f.PodSelector.MatchLabels)) == 1, "%s: there are no pods %v", who, f.PodSelector.MatchLabels)
		}
	}
	if one.Kind == "StatefulSet" {
		peers := o.find("Service", s.ServiceName)
		o.need(peers != nil && peers.Spec.ClusterIP == "None", "%s: there is no headless Service %q", who, s.ServiceName)
	}
	for _, spread := range s.Template.Spec.Spread {
		o.need(slices.Contains(o.selected(spread.LabelSelector.MatchLabels), &s.Template), "%s: is spread by other pods' labels", who)
	}
}

// checkPod looks at what a workload's pods need.
func (o *objects) checkPod(one *object) {
	who := one.Kind + " " + one.Metadata.Name
	pod := &one.Spec.Template
	volumes := map[string]bool{}
	for _, v := range pod.Spec.Volumes {
		volumes[v.Name] = false
		switch {
		case v.ConfigMap.Name != "":
			o.need(o.find("ConfigMap", v.ConfigMap.Name) != nil, "%s: there is no ConfigMap %q", who, v.ConfigMap.Name)
		case v.Secret.SecretName != "":
			o.need(o.find("Secret", v.Secret.SecretName) != nil, "%s: there is no Secret %q", who, v.Secret.SecretName)
		case v.Claim.ClaimName != "":
			o.need(o.find("PersistentVolumeClaim", v.Claim.ClaimName) != nil, "%s: there is no claim %q", who, v.Claim.ClaimName)
		default:
			o.need(!v.HostPath.IsZero(), "%s: volume %q is of nothing", who, v.Name)
		}
	}
	for _, c := range one.Spec.Claims {
		volumes[c.Metadata.Name] = false
	}
	known := ports(pod)
	for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
		for _, m := range c.VolumeMounts {
			_, ok := volumes[m.Name]
			o.need(ok, "%s: there is no volume %q", who, m.Name)
			volumes[m.Name] = true
		}
		for _, p := range []string{c.ReadinessProbe.HTTPGet.Port, c.LivenessProbe.HTTPGet.Port, c.LivenessProbe.TCPSocket.Port} {
			o.need(p == "" || known[p] != 0, "%s: a probe is of port %q", who, p)
		}
		for _, e := range c.Env {
			if of := e.ValueFrom.SecretKeyRef; of.Name != "" {
				s, found := o.find("Secret", of.Name), false
				if s != nil {
					_, found = s.StringData[of.Key]
				}
				o.need(found, "%s: there is no Secret %s with %q", who, of.Name, of.Key)
			}
		}
	}
	for name, mounted := range volumes {
		o.need(mounted, "%s: volume %q is mounted nowhere", who, name)
	}
}

// checkConfig loads a configuration, and looks whether the pods that have it have what
// it names.
func (o *objects) checkConfig(of, text string) {
	var pod *object
	for _, one := range o.all {
		for _, v := range one.Spec.Template.Spec.Volumes {
			if v.ConfigMap.Name == of {
				pod = one
			}
		}
	}
	if pod == nil {
		o.t.Errorf("%s: nobody reads ConfigMap %s", o.name, of)
		return
	}
	for _, e := range pod.Spec.Template.Spec.Containers[0].Env {
		o.t.Setenv(e.Name, "x")
	}
	c, err := cacheconfig.Parse([]byte(text))
	if err == nil {
		err = c.Validate()
	}
	if err != nil {
		o.t.Errorf("%s: ConfigMap %s: %v", o.name, of, err)
		return
	}
	o.need(len(c.Server.Registries) > 0, "ConfigMap %s names no registry", of)
	at := func(name, address string) {
		_, port, _ := net.SplitHostPort(address)
		o.need(fmt.Sprint(ports(&pod.Spec.Template)[name]) == port, "the port %s is not that of %s", name, address)
	}
	at("registry", c.Server.Address)
	at("metrics", c.Metrics.Address)
	o.need(pod.Spec.Template.Metadata.Annotations["prometheus.io/port"] == c.Metrics.Address[strings.LastIndexByte(c.Metrics.Address, ':')+1:], "another port is scraped")
	o.need(o.mount(pod, c.DataPath) != "", "%s is no volume", c.DataPath)
	if !c.Cluster.Enabled() {
		return
	}
	at("peers", c.Cluster.Address)
	o.checkCluster(pod, c.Cluster)
}

// checkCluster looks for what the configuration of a cluster names.
func (o *objects) checkCluster(pod *object, c cacheconfig.Cluster) {
	for _, file := range []string{c.SecretPath, c.Redis.PasswordPath, c.Tier.S3.AccessKeyPath, c.Tier.S3.SecretKeyPath} {
		if file == "" {
			continue
		}
		volume, found := o.mount(pod, path.Dir(file)), false
		for _, v := range pod.Spec.Template.Spec.Volumes {
			if s := o.find("Secret", v.Secret.SecretName); v.Name == volume && s != nil {
				_, found = s.StringData[path.Base(file)]
			}
		}
		o.need(found, "there is no secret for %s", file)
	}
	if c.Tier.Directory != "" {
		o.need(o.mount(pod, c.Tier.Directory) != "", "%s is no volume", c.Tier.Directory)
	}
	name, peers, _ := strings.Cut(c.Advertise, ".")
	service, _, _ := strings.Cut(peers, ".")
	o.need(name == "$POD_NAME" && service == pod.Spec.ServiceName && service != "", "replicas are not %s", c.Advertise)
	self, err := c.AdvertiseAddress()
	o.need(err == nil && self == "x."+service+".x.svc:7001", "the environment does not say what %s is: %q, %v", c.Advertise, self, err)
	for _, a := range c.Redis.Addresses {
		host, port, _ := net.SplitHostPort(a)
		s := o.find("Service", host)
		o.need(s != nil && len(s.Spec.Ports) == 1 && fmt.Sprint(s.Spec.Ports[0].Port) == port, "there is no Service at %s", a)
	}
}

// mount returns the volume that a pod's container has at a folder, "" for none.
func (o *objects) mount(pod *object, dir string) string {
	for _, m := range pod.Spec.Template.Spec.Containers[0].VolumeMounts {
		if path.Clean(m.MountPath) == path.Clean(dir) {
			return m.Name
		}
	}
	return ""
}

var (
	volumeLine = regexp.MustCompile(`(?m)^( *)#volume `)
	s3Lines    = regexp.MustCompile(`(?m)^ {8}s3:\n(?: {10}.*\n)+`)
)

func TestKubernetesObjectsFitTogether(t *testing.T) {
	names, err := filepath.Glob(dir + cacheDir + "*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, name := range names {
		name = filepath.Base(name)
		if name == "config.yaml" { // no object
			continue
		}
		text := read(t, cacheDir+name)
		for variant, text := range map[string][]byte{
			name: text, name + " with a volume": volumeLine.ReplaceAll(s3Lines.ReplaceAll(text, nil), []byte("$1")),
		} {
			o := parseObjects(t, variant, text)
			o.check()
			for _, one := range o.all {
				seen[one.Kind]++
			}
			if strings.HasSuffix(variant, "volume") && volumeLine.Match(text) {
				t.Errorf("%s: lines are left", variant)
			}
		}
	}
	for _, kind := range []string{
		"ConfigMap", "Secret", "Deployment", "StatefulSet", "DaemonSet", "Service", "PersistentVolumeClaim", "PodDisruptionBudget", "NetworkPolicy",
	} {
		if seen[kind] == 0 {
			t.Errorf("there is no %s", kind)
		}
	}
}

// What a node gets is what containerd reads, and sends it to the port that is open.
func TestNodesAreSentToTheCache(t *testing.T) {
	o := parseObjects(t, "kubernetes-cluster.yaml", read(t, cacheDir+"kubernetes-cluster.yaml"))
	config := o.find("ConfigMap", "registry-cache-hosts")
	port := o.find("Service", "registry-cache-cluster").Spec.Ports[0].NodePort
	root := t.TempDir()
	certs := filepath.Join(root, "certs.d")
	for name, text := range config.Data {
		text = strings.NewReplacer("/certs.d", certs, "/config/", root+"/").Replace(text)
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	written := filepath.Join(certs, "_default", "hosts.toml")
	run := func(node string) error {
		c := exec.Command("sh", filepath.Join(root, "write.sh"))
		c.Env = append(os.Environ(), "NODE="+node)
		return c.Run()
	}
	for node, host := range map[string]string{"192.0.2.7": "192.0.2.7", "2001:db8::7": "[2001:db8::7]"} {
		if err := run(node); err != nil {
			t.Fatal(err)
		}
		var hosts struct {
			Host map[string]struct {
				Capabilities []string `toml:"capabilities"`
			} `toml:"host"`
		}
		text, err := os.ReadFile(written)
		if err == nil {
			err = toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&hosts)
		}
		url := fmt.Sprintf("http://%s:%d", host, port)
		if _, ok := hosts.Host[url]; err != nil || !ok || len(hosts.Host) != 1 {
			t.Errorf("%v: want %s in\n%s", err, url, text)
		}
	}
	if err := os.WriteFile(written, []byte("# own\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run("192.0.2.7"); err == nil {
		t.Error("a file of somebody else is written over")
	}
	if text, err := os.ReadFile(written); string(text) != "# own\n" || err != nil {
		t.Errorf("a file of somebody else became %q, %v", text, err)
	}
}

// The password of Redis is in no list of processes, it counts, and the probe knows it.
func TestRedisTakesItsPasswordFromAFile(t *testing.T) {
	redis := redistest.Need(t)
	env := append(redis.Environment(), "PATH="+filepath.Dir(redis.Path)+":"+os.Getenv("PATH"))
	o := parseObjects(t, "kubernetes-cluster.yaml", read(t, cacheDir+"kubernetes-cluster.yaml"))
	c := o.find("Deployment", "registry-cache-redis").Spec.Template.Spec.Containers[0]
	for _, password := range []string{"abcDEF123", ""} {
		root := t.TempDir()
		socket := filepath.Join(root, "socket")
		config := o.find("ConfigMap", "registry-cache-redis").Data["redis.conf"] + "port 0\nunixsocket " + socket + "\n"
		for name, text := range map[string]string{"redis.conf": config, "redis-password": password} {
			if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		here := strings.NewReplacer("/etc/redis/", root+"/", "/etc/redis-secret/", root+"/", "redis-cli", "redis-cli -s "+socket)
		command := func(args []string) *exec.Cmd {
			var local []string
			for _, a := range args {
				local = append(local, here.Replace(a))
			}
			cmd := exec.CommandContext(t.Context(), local[0], local[1:]...) //nolint:gosec // of our own file
			cmd.Env = env
			return cmd
		}
		server := command(c.Command)
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		ready := func() bool { return command(c.ReadinessProbe.Exec.Command).Run() == nil }
		for deadline := time.Now().Add(20 * time.Second); !ready(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("it does not become ready")
			}
		}
		cli := exec.CommandContext(t.Context(), filepath.Join(filepath.Dir(redis.Path), "redis-cli"), "-s", socket, "config", "get", "maxmemory-policy")
		cli.Env = env
		asked, err := cli.Output()
		if err != nil || strings.Contains(string(asked), "volatile-lru") != (password == "") {
			t.Errorf("without the password it says %s, %v", asked, err)
		}
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", server.Process.Pid))
		if err != nil || !strings.Contains(string(line), "redis-server") || password != "" && strings.Contains(string(line), password) {
			t.Errorf("the list of processes has %q, %v", line, err)
		}
		if err := server.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		if err := server.Wait(); err != nil {
			t.Errorf("told to end: %v", err)
		}
	}
}
